"""What a start was, as plain data, and whether it shows what its case is to show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memacct.demo import TOLERANCE_BYTES

if TYPE_CHECKING:
    from memacct.demo import EngineResult

ERROR_LENGTH = 200
FORCED_SPAWN = re.compile(r"must use the `spawn` multiprocessing start method")
RUNNERS = {
    "vllm.v1.worker.gpu_model_runner.GPUModelRunner": "V1",
    "vllm.v1.worker.gpu.model_runner.GPUModelRunner": "V2",
    "vllm.v1.worker.cpu_model_runner.CPUModelRunner": "V1",
    "vllm.v1.worker.cpu.model_runner.CPUModelRunner": "V2",
}
Told = Mapping[str, Any]


def tell(result: EngineResult, cues: Sequence[str]) -> dict[str, Any]:
    """One start as data: how it ended, each rank's KV cache, and which cues it never reached."""
    folder = result.log_path.parent
    runner = str(result.workers[0]["runner"]) if result.workers else None
    return {
        "outcome": result.outcome,
        "kv_cache_bytes": [worker["kv_cache_bytes"] for worker in result.workers],
        "error": result.error[:ERROR_LENGTH] if result.error else None,
        "runner": RUNNERS.get(runner, runner) if runner else None,
        "missed_cues": [cue for cue in cues if not (folder / f"{cue}.reached").exists()],
        "forced_spawn": bool(FORCED_SPAWN.search(result.log())),
        "start_s": None if result.start_s is None else round(result.start_s, 2),
    }


def differences(told: Told, reference: Told) -> list[int] | None:
    """KV bytes less the reference's, rank by rank; None where one of them has none."""
    own, alone = told["kv_cache_bytes"], reference["kv_cache_bytes"]
    if not own or len(own) != len(alone):
        return None
    return [a - b for a, b in zip(own, alone, strict=True)]


def judge(
    isolated: Told, native: Told, *, tolerance_bytes: int = TOLERANCE_BYTES
) -> tuple[str, str]:
    """Verdict and reason.

    Returns:
        ``ok``: served with the isolated engine's KV cache; ``wrong``: not so; ``alone`` if the
        engine does not serve with nothing else on the machine; ``not shown`` if the neighbour
        never moved, so that nothing can be said.
    """
    if isolated["outcome"] != "served":
        return "alone", f"does not start alone either: {isolated['error']}"
    if native["outcome"] != "served":
        return "wrong", f"{native['outcome']}: {native['error']}"
    if native["missed_cues"]:
        return "not shown", f"never came to {', '.join(native['missed_cues'])}"
    apart = differences(native, isolated)
    if apart is None:
        return "wrong", "not as many workers as alone"
    if max(abs(value) for value in apart) > tolerance_bytes:
        return "wrong", f"KV cache differs by {apart} bytes"
    return "ok", ""
