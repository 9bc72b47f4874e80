"""One start of a small real engine, which stands still where it takes its own readings.

python memacct_engine_costs.py MODEL
"""

from __future__ import annotations

import functools
import os
import sys

from memacct_mark import mark  # type: ignore[import-not-found] # in this folder

_PART = 0.8  # of what is free: a neighbour may be there


def main() -> None:
    """Marks: "context", "initialised", "profiled"; then it ends without tidying up."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    import torch

    torch.cuda.set_device(0)
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    mark("context")
    import vllm
    from vllm.v1.worker.gpu_worker import Worker

    _stand_still_after(Worker, "init_device", "initialised")
    _stand_still_after(Worker, "determine_available_memory", "profiled", vllm=vllm.__version__)
    vllm.LLM(
        sys.argv[1],
        load_format="dummy",
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=16,
        max_num_batched_tokens=1024,
        gpu_memory_utilization=_PART * free_bytes / total_bytes,
    )


def _stand_still_after(worker: type, method: str, name: str, **more: str) -> None:
    original = getattr(worker, method)

    @functools.wraps(original)
    def wrapped(*args: object, **kwargs: object) -> object:
        result = original(*args, **kwargs)
        mark(name, **more)
        if name == "profiled":
            sys.stdout.flush()
            os._exit(0)  # all that was to be read has been
        return result

    setattr(worker, method, wrapped)


if __name__ == "__main__":
    main()
