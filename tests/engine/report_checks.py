"""Starts an engine by its own interpreter and prints, as JSON, what its reports say.

python report_checks.py ranks|data_parallel MODEL REPORT_DIR
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

ARGUMENTS: dict[str, Any] = {
    "skip_tokenizer_init": True,
    "dtype": "bfloat16",
    "enforce_eager": True,
    "max_model_len": 512,
    "gpu_memory_utilization": 0.5,
    "disable_custom_all_reduce": True,
}


class Forgetful:
    """Mixed into the worker's class: rank 1 is as if memacct's plugin had not been loaded."""

    @staticmethod
    def init_worker_extension(worker: Any) -> None:
        """Called by vLLM when init_device has ended."""
        from vllm.v1.worker.worker_base import WorkerWrapperBase

        if worker.rank == 1:
            del WorkerWrapperBase.memacct_report

    def rank_of_worker(self) -> int:
        """Asked after the reports: the answers must still be those to the questions."""
        return int(self.rank)  # type: ignore[attr-defined]


def ranks(arguments: dict[str, Any]) -> dict[str, Any]:
    """Tensor parallel 2; only rank 0 has memacct."""
    from vllm import LLM

    from memacct.integrations.vllm import report

    llm = LLM(**arguments, tensor_parallel_size=2, worker_extension_cls="report_checks.Forgetful")
    return {
        "rpc": llm.collective_rpc("memacct_report"),
        "ranks": llm.collective_rpc("rank_of_worker"),
        "live": report(llm),
    }


async def data_parallel(arguments: dict[str, Any]) -> dict[str, Any]:
    """Two engines on two GPUs behind one AsyncLLM."""
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    from memacct.integrations.vllm import report

    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments, data_parallel_size=2))
    try:
        return {"live": await report(engine)}
    finally:
        engine.shutdown()


def main() -> None:
    """Prints one line that begins with RESULT."""
    kind, model, folder = sys.argv[1:]
    memacct = {"profiler": "native", "report_dir": folder}
    arguments = {**ARGUMENTS, "model": model, "additional_config": {"memacct": memacct}}
    told = ranks(arguments) if kind == "ranks" else asyncio.run(data_parallel(arguments))
    print("RESULT" + json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
