"""Starts one real vLLM engine, generates a few tokens and writes what came of it as JSON.

Run by the engine's own interpreter, in whose environment memacct need not be installed: this
folder is put on PYTHONPATH and nothing here imports memacct.

    python memacct_engine_main.py REQUEST.json

The request names the model, the engine's arguments and where to put the result; see
`memacct.demo.engine.EngineOptions`.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

PROMPT = {"prompt_token_ids": [1, 2, 3, 4]}
TOKENS_COUNT = 4


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes `value` so that a reader sees all of it or nothing."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1))
    partial.replace(path)


def make_engine(request: dict[str, Any]) -> Any:
    """The engine, by keyword or (as `vllm serve` does) from a command line."""
    from vllm import LLM

    arguments = dict(request["engine"])
    if "cli" not in request:
        return LLM(**arguments)

    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    line = ["--model", arguments["model"], *request["cli"]]
    parsed = AsyncEngineArgs.from_cli_args(parser.parse_args(line))
    arguments["additional_config"] = parsed.additional_config
    return LLM(**arguments)


def versions() -> dict[str, str]:
    """Of what ran."""
    import torch
    import vllm

    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "vllm": vllm.__version__,
        "cuda": str(torch.version.cuda),
    }


def generate(llm: Any) -> list[int]:
    """A few tokens: the engine serves. On a simulated GPU their values mean nothing."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=TOKENS_COUNT, detokenize=False, ignore_eos=True)
    return list(llm.generate([PROMPT], parameters, use_tqdm=False)[0].outputs[0].token_ids)


def take(llm: Any, step: list[Any]) -> str:
    """Calls one method of the engine, generates or stays; returns "done" or the error."""
    name, *arguments = step
    try:
        if name == "generate":
            generate(llm)
        elif name == "stay":
            stay(Path(arguments[0]))
        else:
            getattr(llm, name)(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever came of it is the outcome
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return "done"


def run(
    llm: Any, start_s: float, *, sleeps: bool = False, steps: list[list[Any]] | None = None
) -> dict[str, Any]:
    """Generates, and asks each worker what it allocated; again after a sleep if asked for."""
    tokens = generate(llm)
    workers = llm.collective_rpc("demo_worker_report")
    if sleeps:
        llm.sleep(level=1)
        llm.wake_up()
        tokens = generate(llm)
    return {
        "outcome": "served",
        "start_s": start_s,
        "workers": workers,
        "tokens_count": len(tokens),
        "steps": [take(llm, step) for step in steps or ()],
        "additional_config": llm.llm_engine.vllm_config.additional_config,
        "config_hash": llm.llm_engine.vllm_config.compute_hash(),
    }


async def run_server(request: dict[str, Any]) -> dict[str, Any]:
    """The same by the engine of vLLM's server, which starts data-parallel ranks itself.

    Its remote call returns one rank's answer: each worker leaves its own as a file.
    """
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    started_s = time.monotonic()
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**request["engine"]))
    try:
        start_s = time.monotonic() - started_s
        await llm.collective_rpc("demo_worker_report")
        parameters = SamplingParams(max_tokens=TOKENS_COUNT, detokenize=False, ignore_eos=True)
        count = 0
        for name in ("first", "second"):
            async for output in llm.generate(PROMPT, parameters, name):
                count = len(output.outputs[0].token_ids)
        files = Path(request["result_path"]).parent.glob("worker-*.json")
        workers = [json.loads(path.read_text()) for path in files]
    finally:
        llm.shutdown()
    return {"outcome": "served", "start_s": start_s, "workers": workers, "tokens_count": count}


def end_with_parent() -> None:
    """If whoever started this process is killed, the engine ends too (prctl PR_SET_PDEATHSIG)."""
    set_death_signal = 1
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def stay(until: Path) -> None:
    """Holds the engine's memory until the stage manager lets it go or ends it."""
    while not until.exists():
        time.sleep(0.05)


def main() -> int:
    """Exit status 0 if the engine served, 1 if it did not start."""
    end_with_parent()
    request = json.loads(Path(sys.argv[1]).read_text())
    result_path = Path(request["result_path"])
    started_s = time.monotonic()
    llm = None
    try:
        if request.get("server"):
            result = asyncio.run(run_server(request))
        else:
            llm = make_engine(request)
            start_s = time.monotonic() - started_s
            sleeps, steps = bool(request.get("sleep")), request.get("steps")
            result = run(llm, start_s, sleeps=sleeps, steps=steps)
    except Exception as error:  # noqa: BLE001 - whatever stops the engine is the result
        result = {"outcome": "failed", "error": type(error).__name__, "message": str(error)}
    write_json(result_path, {**result, "versions": versions()})
    if request.get("stay") and llm is not None:
        stay(result_path.parent / "served.go")
    return 0 if result["outcome"] == "served" else 1


if __name__ == "__main__":
    sys.exit(main())
