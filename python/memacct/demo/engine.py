"""One real vLLM engine in processes of its own: what to start, how it went, what it allocated."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ENGINE_SIDE = Path(__file__).parent / "engine_side"
NATIVE_CONFIG: Mapping[str, Any] = {"memacct": {"profiler": "native"}}
# "Engine core initialization failed. See root cause above" is what the parent says; the cause is
# an exception's line in the log of another process.
CAUSE = re.compile(r"\b(?P<type>[A-Z]\w*(?:Error|Exception)): (?P<message>\S.*)")
WRAPPERS = ("Engine core initialization failed", "WorkerProc initialization failed")
KEY_LINES = re.compile(
    r"Available KV cache memory|Using V[12] Model Runner|GPU KV cache size|Free memory on device"
    r"|[mM]emacct|Auto set|Error in memory profiling|Available.*memory on node"
)


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """An engine to start. Equal options in equal worlds give equal engines.

    Attributes:
        budget_bytes: gpu_memory_utilization x the device's total; so that a scenario means the
            same on devices of different sizes.
        arguments: further keyword arguments of `vllm.LLM`.
        cli: command-line arguments whose `--additional-config` is taken, parsed as by `vllm serve`.
        environ: added to that of the engine's processes.
        steps: what to do once it serves: names of methods of `vllm.LLM` with their arguments,
            "generate", or "stay" until there is a file of that name.
        plugins: which general plugins vLLM loads: "none" keeps memacct out even if installed.
        sleeps: the engine sleeps, wakes up and generates once more (give enable_sleep_mode too).
        server: it is the engine that vLLM's server has, with ranks of its own for data parallel.
    """

    budget_bytes: int
    enforce_eager: bool = True
    tensor_parallel_size: int = 1
    max_model_len: int = 512
    additional_config: Mapping[str, Any] | None = None
    cli: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[tuple[Any, ...], ...] = ()
    plugins: str = "none"
    sleeps: bool = False
    server: bool = False

    def native(self) -> EngineOptions:
        """The same engine with memacct's native profiler.

        By additional_config; with torch.compile by the environment, because additional_config is
        in the key of vLLM's compile cache, and a start that compiles takes other memory than one
        that finds the compiled model.
        """
        if self.enforce_eager:
            return replace(self, additional_config=NATIVE_CONFIG, plugins="memacct")
        return replace(self, environ={**self.environ, "MEMACCT_VLLM": "1"}, plugins="memacct")

    def key(self) -> str:
        """Text that is equal for equal options."""
        return repr(self)

    def engine_arguments(self, model: Path, total_bytes: int) -> dict[str, Any]:
        """Keyword arguments of `vllm.LLM`."""
        arguments: dict[str, Any] = {
            "model": str(model),
            "skip_tokenizer_init": True,
            "dtype": "bfloat16",
            "disable_log_stats": True,
            "enforce_eager": self.enforce_eager,
            "max_model_len": self.max_model_len,
            "gpu_memory_utilization": self.budget_bytes / total_bytes,
            "worker_extension_cls": "memacct_stage.StageExtension",
        }
        if self.tensor_parallel_size > 1:
            arguments["tensor_parallel_size"] = self.tensor_parallel_size
            arguments["disable_custom_all_reduce"] = True
        if self.additional_config is not None:
            arguments["additional_config"] = dict(self.additional_config)
        return {**arguments, **self.arguments}


@dataclass(frozen=True, kw_only=True)
class EngineResult:
    """How a start went.

    Attributes:
        outcome: "served", "failed" or "timeout".
        kv_cache_bytes: bytes of the storages that rank 0 allocated for its KV cache.
        error: the exception that stopped the engine, "Type: message".
        workers: each worker's own report.
        wall_s: from the start of the process to its end.
    """

    outcome: str
    log_path: Path
    wall_s: float
    kv_cache_bytes: int | None = None
    error: str | None = None
    start_s: float | None = None
    workers: tuple[Mapping[str, Any], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def served(self) -> bool:
        """Whether it generated tokens."""
        return self.outcome == "served"

    def log(self) -> str:
        """The whole log of all the engine's processes."""
        return self.log_path.read_text(errors="replace")

    def key_lines(self) -> list[str]:
        """The log's lines about memory."""
        return [line for line in self.log().splitlines() if KEY_LINES.search(line)]


def root_cause(log: str) -> str | None:
    """The exception that stopped the engine, from its log: the last that only wraps no other."""
    causes = [
        f"{match['type']}: {match['message']}"
        for match in CAUSE.finditer(log)
        if not any(wrapper in match["message"] for wrapper in WRAPPERS)
    ]
    return causes[-1] if causes else None


def engine_environ(
    base: Mapping[str, str], extra: Mapping[str, str], plugins: str, cache: Path
) -> dict[str, str]:
    """`base` without leftovers that would change an engine, plus what it needs, plus `extra`."""
    leftovers = ("VLLM_", "MEMACCT_STAGE", "MEMACCT_VLLM", "MEMACCT_REPORT", "MEMACCT_TIMELINE")
    environ = {name: value for name, value in base.items() if not name.startswith(leftovers)}
    environ |= {
        "PYTHONPATH": str(ENGINE_SIDE),
        "PYTHONUNBUFFERED": "1",
        "VLLM_PLUGINS": plugins,
        "VLLM_CACHE_ROOT": str(cache),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",  # FlashInfer is left out of the environment
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return environ | dict(extra)


class EngineRun:
    """A running engine. A context manager: leaving it ends the engine's process group.

    Args:
        python: the interpreter of the environment with vLLM.
        folder: for the log, the request and the cues; made if need be.
        cues: points (engine_side/memacct_stage.py) at which the engine waits for `go`.
        stay: keep serving until `go("served")`.
        limit_s: after this many seconds the engine is ended and the outcome is "timeout".
    """

    def __init__(
        self,
        options: EngineOptions,
        *,
        python: Path,
        model: Path,
        folder: Path,
        total_bytes: int,
        environ: Mapping[str, str],
        cues: tuple[str, ...] = (),
        cue_rank: int = 0,
        stay: bool = False,
        limit_s: float = 300.0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in ("*.reached", "*.go", "*.json", "memacct/*.json*"):
            for path in folder.glob(stale):
                path.unlink()
        self.folder, self.limit_s = folder, limit_s
        self.log_path = folder / "engine.log"
        self.result_path = folder / "result.json"
        request: dict[str, Any] = {
            "engine": options.engine_arguments(model, total_bytes),
            "steps": options.steps,
            "result_path": str(self.result_path),
            "stay": stay,
            "sleep": options.sleeps,
            "server": options.server,
        }
        if options.cli:
            request["cli"] = list(options.cli)
        (folder / "request.json").write_text(json.dumps(request, indent=1))
        stage = {
            "MEMACCT_STAGE_DIR": str(folder),
            "MEMACCT_STAGE_CUES": ",".join(cues),
            "MEMACCT_STAGE_RANK": str(cue_rank),
            "MEMACCT_STAGE_WAIT_S": str(limit_s),
        }
        extra = {**stage, "MEMACCT_REPORT_DIR": str(folder / "memacct"), **options.environ}
        cache = folder.parent / "vllm-cache"
        self.environ = engine_environ(environ, extra, options.plugins, cache)
        self.command = [str(python), str(ENGINE_SIDE / "memacct_engine_main.py")]
        self.process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0

    def __enter__(self) -> EngineRun:
        """Starts the engine."""
        log: IO[bytes]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*self.command, str(self.folder / "request.json")],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started_s = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends whatever of the engine's process group is left, and waits for it."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def alive(self) -> bool:
        """Whether the engine's first process runs and has time left."""
        if self.process is None or time.monotonic() - self.started_s > self.limit_s:
            return False
        return self.process.poll() is None

    def _until(self, path: Path) -> bool:
        """Waits until `path` is there; False if the engine ended before."""
        for _ in self._while_alive():
            if path.exists():
                return True
        return path.exists()

    def _while_alive(self) -> Iterator[None]:
        while self.alive():
            yield
            time.sleep(0.01)

    def wait_cue(self, name: str) -> bool:
        """Waits until the engine stands at the cue; False if it ended without reaching it."""
        return self._until(self.folder / f"{name}.reached")

    def go(self, name: str) -> None:
        """Lets the engine leave the cue."""
        (self.folder / f"{name}.go").touch()

    def wait_result(self) -> bool:
        """Waits until the engine has served or failed; it may run on (see `stay`)."""
        return self._until(self.result_path)

    def finish(self) -> EngineResult:
        """Waits for the engine's end and says how it went."""
        for _ in self._while_alive():
            pass
        wall_s = time.monotonic() - self.started_s
        timed_out = self.process is not None and self.process.poll() is None
        self.__exit__()
        raw = json.loads(self.result_path.read_text()) if self.result_path.exists() else {}
        outcome = raw.get("outcome", "timeout" if timed_out else "failed")
        workers = tuple(sorted(raw.get("workers", ()), key=lambda worker: int(worker["rank"])))
        return EngineResult(
            outcome=outcome,
            log_path=self.log_path,
            wall_s=wall_s,
            kv_cache_bytes=workers[0]["kv_cache_bytes"] if workers else None,
            error=None if outcome == "served" else self._error(raw) or outcome,
            start_s=raw.get("start_s"),
            workers=workers,
            versions=raw.get("versions", {}),
            raw=raw,
        )

    def _error(self, raw: Mapping[str, Any]) -> str | None:
        """The exception that stopped the engine: the caller's, or the worker's that it wraps."""
        said = f"{raw['error']}: {raw['message']}" if "error" in raw else None
        if said is not None and not any(wrapper in said for wrapper in WRAPPERS):
            return said
        return root_cause(self.log_path.read_text(errors="replace")) or said
