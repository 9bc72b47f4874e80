"""Starts one real vLLM engine as `vllm serve` would, and writes down how that went.

Run by the engine's own interpreter, in whose environment memacct need not be installed: this
folder is on PYTHONPATH and nothing here imports memacct.

    python memacct_dryrun.py REQUEST.json

The request is {"line": the options of `vllm serve`, with --model}. One device: the engine core runs
in this process, which spares the start of another; several: workers of the executor that vLLM
chooses; data parallel: the engine that vLLM's server has.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

# Here, and not in main: a spawned process of the engine runs this file too, under another name.
importlib.import_module("memacct_quick").apply()


class ArgumentsError(Exception):
    """The engine's parser refuses the command line."""


def main() -> int:
    """Exit status 0 if the engine started, 1 if it did not; the reason is in main.json."""
    end_with_parent()
    from memacct_dryrun_files import Record

    request = json.loads(Path(sys.argv[1]).read_text())
    record = Record("main", versions=versions())
    where = "import"
    try:
        with record.phase("import"):
            record.tell(notes=prepare())
            parser_module = first_module(
                "vllm.entrypoints.common.cli_args",
                "vllm.entrypoints.launchers.cli_args",  # 0.30 and 0.31
                "vllm.entrypoints.openai.cli_args",
            )
        where = "arguments"
        with record.phase("arguments"):
            arguments, parsed = parse(parser_module, request["line"])
        where = "config"
        with record.phase("config"):
            config, usage = configure(arguments, parsed)
        where = "engine"
        record.tell(own_bytes=own_bytes(), server=config.parallel_config.data_parallel_size > 1)
        with record.phase("engine"):
            start(config, usage)
        record.tell(outcome="started")
    except BaseException as error:  # noqa: BLE001 - whatever stops the engine is the result
        traceback.print_exc()
        record.fail(where, error)
        record.tell(outcome="failed")
    sys.stdout.flush()
    sys.stderr.flush()
    # Nothing that the engine would still tidy up is wanted: its processes are ended from outside.
    os._exit(0 if record.facts.get("outcome") == "started" else 1)


def end_with_parent() -> None:
    """If whoever started this process is killed, the engine ends too (prctl PR_SET_PDEATHSIG)."""
    set_death_signal = 1
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def prepare() -> list[str]:
    """Imports the engine, and hooks it; returns what is assumed, for people."""
    notes = []
    sampler = "VLLM_USE_FLASHINFER_SAMPLER"
    flashinfer = importlib.import_module("memacct_flashinfer").apply()
    importlib.import_module("memacct_cutlass").apply()
    if not flashinfer and sampler not in os.environ:
        os.environ[sampler] = "0"
        stand_in = importlib.import_module("memacct_flashinfer_sampler")
        os.environ[stand_in.WANTED] = "1"
        stand_in.apply()
        notes.append(
            "FlashInfer is not installed with this vLLM: sampled without it, but the V2 runner"
            " with tensors of the sizes that its sampler takes"
        )
    notes += importlib.import_module("memacct_unified").apply()
    import vllm  # noqa: F401

    importlib.import_module("memacct_small_results").apply()
    importlib.import_module("memacct_dryrun_hooks").hook_all()
    return notes


def first_module(*names: str) -> Any:
    """The first of these modules that this vLLM has."""
    found = (name for name in names if has_module(name))
    return importlib.import_module(next(found, names[-1]))


def has_module(name: str) -> bool:
    """Whether there is such a module; what it imports may still be missing."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def versions() -> dict[str, str]:
    """Of what runs; the versions of packages, so that nothing is imported for it."""
    from importlib import metadata

    found = {"python": sys.version.split()[0]}
    for name in ("vllm", "torch", "transformers", "triton", "flashinfer-python"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def parse(module: Any, line: list[str]) -> tuple[Any, Any]:
    """The engine's arguments by its own parser.

    Raises:
        ArgumentsError: in the parser's words.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs

    parsers = first_module("vllm.utils.argparse_utils", "vllm.utils")
    parser = parsers.FlexibleArgumentParser(prog="vllm serve")

    def refuse(message: str) -> Any:
        raise ArgumentsError(message)

    parser.error = refuse
    parser = module.make_arg_parser(parser)
    parser.error = refuse
    parsed = parser.parse_args(line)
    if getattr(parsed, "model_tag", None):
        parsed.model = parsed.model_tag
    return AsyncEngineArgs.from_cli_args(parsed), parsed


def configure(arguments: Any, parsed: Any) -> tuple[Any, Any]:
    """The resolved configuration, as the server makes it: batch defaults depend on who asks."""
    from vllm.usage.usage_lib import UsageContext

    usage = UsageContext.OPENAI_API_SERVER
    count = getattr(parsed, "api_server_count", None) or arguments.data_parallel_size
    if hasattr(arguments, "_api_process_count") and count > 1:
        arguments._api_process_count = count  # noqa: SLF001 (so does the server)
    return arguments.create_engine_config(usage_context=usage), usage


def start(config: Any, usage: Any) -> None:
    """Makes the engine and waits until it could serve."""
    if config.parallel_config.data_parallel_size > 1:
        start_server(config, usage)
        return
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.executor.abstract import Executor

    EngineCore(config, Executor.get_class(config), log_stats=False)


def start_server(config: Any, usage: Any) -> None:
    """The engine that vLLM's server has: it starts data-parallel ranks itself."""
    import asyncio

    from vllm.v1.engine.async_llm import AsyncLLM

    async def begin() -> None:
        AsyncLLM.from_vllm_config(config, usage_context=usage, disable_log_stats=True)

    asyncio.run(begin())


def own_bytes() -> int | None:
    """This process's anonymous memory: at this point it is what an API server has, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    told = next((line for line in lines if line.startswith("RssAnon:")), None)
    return None if told is None else int(told.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
