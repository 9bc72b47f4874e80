"""Why an engine did not start: not enough memory (a result), or anything else (an error)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from memacct._errors import ConfigError, MemacctError

from .result import Amount, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .engine_process import Outcome

_OUT_OF_MEMORY = ("OutOfMemoryError", "out of memory")
# What a caller says of an error that another process has told already.
_WRAPPERS = ("Engine core initialization failed", "WorkerProc initialization failed")
# CUDA's words (cudaErrorNoKernelImageForDevice).
_NO_CODE = "no kernel image is available"
_WHOLE = 100
# What is full when a step runs out of memory. Of the core's own steps no worker has told.
_STEPS = {
    "init_device": "weights",
    "load_model": "weights",
    "determine_available_memory": "activation",
    "profile_cudagraph_memory": "graphs",
    "_initialize_kv_caches": "activation",
    "initialize_from_config": "no room for KV cache",
    "compile_or_warm_up_model": "activation",
    "capture_model": "graphs",
}


class EngineError(MemacctError):
    """The engine ended without an answer that is about memory; its log is kept."""


class OptionsError(ConfigError):
    """vLLM's parser does not take the options, whatever the machine."""


def refusal(outcome: Outcome) -> Refusal | None:
    """Why the engine says that it does not fit; None: it starts.

    Raises:
        ConfigError: it refuses its arguments, the model or its configuration.
        EngineError: it ended otherwise, or the limit came first.
    """
    if outcome.main.get("outcome") == "started":
        return None
    for file in (*outcome.of_kind("worker"), *outcome.of_kind("core")):
        if (error := file.get("error")) and (found := _of_error(outcome, file, error)):
            return found
    raise _not_about_memory(outcome)


def _of_error(
    outcome: Outcome, file: Mapping[str, Any], error: Mapping[str, Any]
) -> Refusal | None:
    message = str(error["message"])
    if "needed_bytes" in error:
        return _cache(error, message, next(iter(outcome.of_kind("worker")), {}))
    if "Free memory on device" in message:
        return _start(file, message)
    if any(text in f"{error['type']} {message}" for text in _OUT_OF_MEMORY):
        return _out_of_memory(error, message)
    return None


def _start(file: Mapping[str, Any], message: str) -> Refusal:
    """Less is free at the start than the utilization asks for."""
    start = file.get("start", {})
    requested, free = file.get("requested_bytes"), start.get("free_memory")
    missing = None
    suggestions: tuple[str, ...] = ()
    if requested is not None and free is not None:
        missing = exact(int(requested) - int(free), "requested less free at the start")
        suggestions = _utilization(int(free), int(start["total_memory"]))
    return Refusal(
        kind="free below requested", message=message, missing=missing, suggestions=suggestions
    )


def _utilization(free_bytes: int, total_bytes: int) -> tuple[str, ...]:
    """The largest utilization, in hundredths, that asks for no more than is free."""
    hundredths = free_bytes * _WHOLE // total_bytes
    if not 0 < hundredths <= _WHOLE:
        return ()
    why = "what is free; the model may need more"
    return (f"--gpu-memory-utilization {hundredths / _WHOLE:.2f} ({why})",)


def _cache(error: Mapping[str, Any], message: str, worker: Mapping[str, Any]) -> Refusal:
    """The plan of the cache is refused; what would do is asked of the plan, or reckoned by it."""
    available, needed = min(error["available_bytes"]), int(error["needed_bytes"])
    return Refusal(
        kind="no room for KV cache" if available <= 0 else "KV cache below one request",
        message=message,
        missing=exact(needed - available, "the engine's own plan, asked again with other sizes"),
        suggestions=(*_shorter(error), *_more(needed - available, worker)),
    )


def _shorter(error: Mapping[str, Any]) -> tuple[str, ...]:
    length = int(error.get("fitting_max_model_len") or 0)
    if not 0 < length < int(error["max_model_len"]):
        return ()
    return (f"--max-model-len {length} (the engine's own plan, asked again)",)


def _more(missing: int, worker: Mapping[str, Any]) -> tuple[str, ...]:
    """The least utilization, in hundredths, that asks for what is missing, if so much is free."""
    start, requested = worker.get("start", {}), worker.get("requested_bytes")
    if not start or requested is None:
        return ()
    total = int(start["total_memory"])
    hundredths = -(-(int(requested) + missing) * _WHOLE // total)
    if hundredths * total // _WHOLE > int(start["free_memory"]):
        return ()
    return (f"--gpu-memory-utilization {hundredths / _WHOLE:.2f} (asks for what is missing)",)


def _out_of_memory(error: Mapping[str, Any], message: str) -> Refusal:
    """PyTorch asked for more than is free; what would have come later is not in the number."""
    last = error.get("out_of_memory")
    missing = None
    if last is not None:
        bytes_ = int(last["asked_bytes"]) - int(last["free_bytes"])
        missing = exact(bytes_, "at least: the first allocation that failed, less what was free")
    first = message.splitlines()[0] if message else str(error["type"])
    return Refusal(kind=_STEPS.get(str(error["where"]), "weights"), message=first, missing=missing)


def exact(value: int, source: str) -> Amount:
    """Bytes without a range."""
    return Amount(bytes=value, low_bytes=value, high_bytes=value, source=source)


def _not_about_memory(outcome: Outcome) -> MemacctError:
    log = f"its log: {outcome.log_path}"
    error = outcome.main.get("error")
    if outcome.timed_out:
        last = _last_step(outcome)
        return EngineError(
            f"the engine did not start within {outcome.wall_s:.0f} s; it was at: {last}; {log}"
        )
    if error is None:
        return EngineError(_ended(outcome, log))
    if _NO_CODE in str(error["message"]):
        torch = outcome.main.get("versions", {}).get("torch", "of this vLLM")
        return ConfigError(f"PyTorch {torch} has no code for this card's compute capability")
    said = _sentence(str(error["message"])) or str(error["type"])
    if error["where"] == "arguments":
        return OptionsError(f"vLLM refuses its options: {said}")
    if error["where"] == "config":
        return ConfigError(f"vLLM refuses the model or its options: {said}")
    return EngineError(f"the engine did not start: {_root(outcome, error)}; {log}")


def _ended(outcome: Outcome, log: str) -> str:
    """It is gone without a word of its own: a signal, or a library that ends a process."""
    status = outcome.exit_status or 0
    how = f"signal {-status} ended the engine" if status < 0 else f"it ended with status {status}"
    lines = outcome.log_path.read_text(errors="replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
    return f"{how} at: {_last_step(outcome)}; its last line: {last[:200]}; {log}"


def _root(outcome: Outcome, error: Mapping[str, Any]) -> str:
    """The first error of any process: what the others say only wraps it."""
    files = (*outcome.of_kind("worker"), *outcome.of_kind("core"))
    errors = [file["error"] for file in files if file.get("error")]
    found = next(iter(errors), error)
    if any(text in str(found["message"]) for text in _WRAPPERS):
        found = error
    return f"{found['type']}: {_sentence(str(found['message'])) or 'it says no more'}"


def _sentence(message: str) -> str:
    """The first telling line of a message, without what pydantic puts around it."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if lines and re.match(r"\d+ validation errors? for", lines[0]):
        telling = [line for line in lines[1:] if " " in line]
        lines = telling or lines
    text = lines[0] if lines else ""
    text = re.sub(r"^(Value|Assertion) error, ", "", text)
    return re.sub(r"\s*\[type=.*$", "", text).rstrip(".")[:400]


def _last_step(outcome: Outcome) -> str:
    """The step that had begun last and not ended."""
    open_ = [
        (phase["begin_s"], phase["name"])
        for file in outcome.files.values()
        for phase in file.get("phases", ())
        if phase["end_s"] is None
    ]
    return max(open_)[1] if open_ else "its beginning"
