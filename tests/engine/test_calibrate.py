"""memacct calibrate finds what a simulated GPU was told to take, and a dry run is told the same."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from memacct._units import MIB
from memacct.dry_run.calibration_file import read_calibrations
from memacct.dry_run.costs import known_costs
from memacct.dry_run.machine import machine
from memacct.sim import Costs, SimulatedGpu, build_runtime

pytestmark = pytest.mark.engine

DEFAULT_PYTHON = Path(__file__).parents[2] / ".venv-gpu" / "bin" / "python"
PYTHON = os.environ.get("MEMACCT_ENGINE_PYTHON", str(DEFAULT_PYTHON))
CONTEXT_BYTES = 433 * MIB + 777
LIMIT_BYTES = 23 * MIB + 12345
COSTS = Costs(
    kernel_bytes=MIB,
    kernels_limit_bytes=LIMIT_BYTES,
    cublas_bytes=7 * MIB + 11,
    graph_bytes=54321,
    graph_node_bytes=9999,
    nccl_bytes=30 * MIB + 1,
    nccl_first_bytes=71 * MIB + 3,
)


@pytest.fixture(scope="module", autouse=True)
def _runtime() -> None:
    if not Path(PYTHON).exists():
        pytest.skip(f"no Python with the CUDA build of torch at {PYTHON}")
    build_runtime(python=PYTHON)


def calibrate(out: Path, gpus_count: int, *options: str) -> None:
    with SimulatedGpu(count=gpus_count, context_bytes=CONTEXT_BYTES, costs=COSTS) as gpu:
        environ = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_USE_FLASHINFER_SAMPLER": "0"}
        command = [sys.executable, "-m", "memacct", "calibrate", "--python", PYTHON]
        done = gpu.run(
            [*command, "--repeats", "1", "--out", str(out), *options],
            runtime=True,
            python=PYTHON,
            env=environ,
            text=True,
            capture_output=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        assert str(out) in done.stdout
        assert all(device.processes == () for device in gpu.status().devices)


def test_every_cost_is_found_to_the_byte_and_told_to_a_dry_run(tmp_path: Path) -> None:
    out = tmp_path / "calibration.json"
    calibrate(out, 2, "--no-engine")
    (found,) = read_calibrations(out)
    wanted = {
        "context": CONTEXT_BYTES,
        "cublas": COSTS.cublas_bytes,
        "graph": COSTS.graph_bytes,
        "graph_node": COSTS.graph_node_bytes,
        "nccl": COSTS.nccl_bytes,
        "nccl_first": COSTS.nccl_first_bytes,
    }
    assert {name: amount.bytes for name, amount in found.figures.items()} == wanted
    assert found.card == machine("h100").driver_name
    assert found.gpus == 2
    assert found.notes == ()
    costs = known_costs(
        machine("h100", 2), tensor_parallel_size=2, torch=found.torch, calibration=out
    )
    told = costs.simulated()
    assert costs.simulated_context_bytes == CONTEXT_BYTES
    assert (told.cublas_bytes, told.graph_bytes) == (COSTS.cublas_bytes, COSTS.graph_bytes)
    assert told.graph_node_bytes == COSTS.graph_node_bytes
    assert (told.nccl_bytes, told.nccl_first_bytes) == (COSTS.nccl_bytes, COSTS.nccl_first_bytes)


def test_an_engines_kernels_are_what_comes_after_its_first_reading(tmp_path: Path) -> None:
    out = tmp_path / "calibration.json"
    calibrate(out, 1)
    (found,) = read_calibrations(out)
    kernels = found.figures["kernels"].bytes
    # Whole kernels of 1 MiB were loaded before the engine looked first; the rest is its own.
    early, odd = divmod(LIMIT_BYTES - kernels, MIB)
    assert odd == 0
    assert 0 < early <= 16
    assert found.vllm is not None
    costs = known_costs(machine("h100"), tensor_parallel_size=1, calibration=out)
    assert costs.kernels == found.figures["kernels"]
