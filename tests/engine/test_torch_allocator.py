"""PyTorch's allocator joined to snapshots, on an unmodified torch on the simulated GPU.

One process for each configuration of the allocator runs all of its checks.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import pytest

from memacct.sim import Costs, SimulatedGpu, build_runtime

pytestmark = pytest.mark.engine

CHECKS = Path(__file__).with_name("torch_allocator_checks.py")
DEFAULT_PYTHON = Path(__file__).parents[2] / ".venv-gpu" / "bin" / "python"
PYTHON = os.environ.get("MEMACCT_ENGINE_PYTHON", str(DEFAULT_PYTHON))

# By PYTORCH_CUDA_ALLOC_CONF; the first check comes before torch is imported.
CASES = {
    "": (
        "unused_torch_is_not_asked",
        "account_is_joined",
        "split_blocks_are_in_the_ratio",
        "every_device_has_its_account",
        "what_could_be_given_back",
        "the_largest_request_needs_nothing_more",
        "private_pools_keep_their_cache",
        "a_block_that_a_stream_still_uses",
        "frames_are_in_the_table",
        "each_device_has_its_report",
        "a_pluggable_allocator_lies",
        "steps_tell_apart_what_is_not_torchs",
        "an_error_in_torch_is_noted_once",
    ),
    "expandable_segments:True": (
        "expandable_segments_are_pages",
        "the_largest_request_needs_nothing_more",
        "graphs_keep_their_pages",
    ),
    "backend:cudaMallocAsync": ("the_drivers_pool_is_the_account",),
}


@functools.cache
def results(settings: str) -> dict[str, str]:
    build_runtime(python=PYTHON)
    costs = Costs(cublas_bytes="8MiB", graph_bytes="16MiB")
    with SimulatedGpu(total_bytes="140GiB", count=2, context_bytes="400MiB", costs=costs) as gpu:
        done = gpu.run(
            [PYTHON, "-W", "ignore", CHECKS, *CASES[settings]],
            runtime=True,
            python=PYTHON,
            env={**os.environ, "PYTORCH_CUDA_ALLOC_CONF": settings},
            text=True,
            capture_output=True,
            timeout=120,
        )
    if done.returncode != 0:
        return dict.fromkeys(CASES[settings], f"ended with {done.returncode}: {done.stderr}")
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("settings", "name"),
    [(settings, name) for settings, names in CASES.items() for name in names],
)
def test_torch(settings: str, name: str) -> None:
    if not Path(PYTHON).exists():
        pytest.skip(f"no Python with the CUDA build of torch at {PYTHON}")
    assert results(settings)[name] == "ok", results(settings)[name]
