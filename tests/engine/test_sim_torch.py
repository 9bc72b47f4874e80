"""The CUDA build of torch, unmodified, on the simulated GPU.

MEMACCT_ENGINE_PYTHON names its Python; default ``.venv-gpu/bin/python`` of the repository.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memacct._units import GIB, MIB
from memacct.sim import CallFault, Costs, Faults, SimulatedGpu, build_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.engine

CHECKS = Path(__file__).with_name("sim_torch_checks.py")
DEFAULT_PYTHON = Path(__file__).parents[2] / ".venv-gpu" / "bin" / "python"
PYTHON = os.environ.get("MEMACCT_ENGINE_PYTHON", str(DEFAULT_PYTHON))


@pytest.fixture(scope="module", autouse=True)
def _runtime() -> None:
    if not Path(PYTHON).exists():
        pytest.skip(f"no Python with the CUDA build of torch at {PYTHON}")
    build_runtime(python=PYTHON)


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB", context_bytes="400MiB") as machine:
        yield machine


def check(gpu: SimulatedGpu, name: str, **options: Any) -> str:
    done = gpu.run(
        [PYTHON, "-W", "ignore", CHECKS, name],
        runtime=True,
        python=PYTHON,
        text=True,
        capture_output=True,
        timeout=120,
        **options,
    )
    assert done.returncode == 0, done.stderr
    assert gpu.status().devices[0].processes == ()
    return str(done.stdout)


@pytest.mark.parametrize(
    "name",
    [
        "device",
        "asking_takes_nothing",
        "account",
        "out_of_memory",
        "work",
        "streams_events_graphs",
        "fork_after_init",
        "memory_of_another_process",
    ],
)
def test_torch(gpu: SimulatedGpu, name: str) -> None:
    check(gpu, name)


@pytest.mark.parametrize("allocator", ["expandable_segments:True", "backend:cudaMallocAsync"])
def test_allocators(gpu: SimulatedGpu, allocator: str) -> None:
    check(gpu, "allocator", env={**os.environ, "PYTORCH_CUDA_ALLOC_CONF": allocator})


def test_torch_sees_its_neighbours(gpu: SimulatedGpu) -> None:
    with gpu.tenant("7GiB", context_bytes=0) as tenant:
        readings = check_beside(gpu, "readings")
        assert readings == [7 * 1024 + 400] * 3
        assert gpu.status().devices[0].process_used_bytes(tenant.pid) == 7 * GIB


def test_a_neighbour_moves_at_one_reading(gpu: SimulatedGpu) -> None:
    change = CallFault(function="cudaMemGetInfo", charge_bytes="+3GiB", after_count=1, for_count=1)
    with gpu.tenant("7GiB", context_bytes=0):
        readings = check_beside(gpu, "readings", faults=Faults(calls=[change]))
        assert readings == [7 * 1024 + 400, 10 * 1024 + 400, 10 * 1024 + 400]


def check_beside(gpu: SimulatedGpu, name: str, **options: Any) -> list[int]:
    """As `check`, with neighbours who stay."""
    done = gpu.run(
        [PYTHON, CHECKS, name],
        runtime=True,
        python=PYTHON,
        text=True,
        capture_output=True,
        timeout=120,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_a_neighbour_acts_when_a_graph_is_captured() -> None:
    costs = Costs(graph_bytes="16MiB")
    with (
        SimulatedGpu(total_bytes="32GiB", costs=costs) as gpu,
        gpu.tenant("7GiB") as tenant,
        gpu.popen(
            [PYTHON, CHECKS, "capture_after_a_line"],
            runtime=True,
            python=PYTHON,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        ) as engine,
    ):
        assert engine.stdin is not None
        assert engine.stdout is not None
        assert engine.stdout.readline() == "ready\n"
        number = tenant.when(graph_captures=1, pid=engine.pid, then="free")
        before_bytes = gpu.status().devices[0].process_used_bytes(engine.pid)
        engine.stdin.write("go\n")
        assert engine.stdout.readline() == "captured\n"
        assert tenant.wait_action(number, timeout_s=10).bytes == 7 * GIB
        # torch's own blocks for the graph, and the instantiated graph's 16 MiB
        grown_bytes = gpu.status().devices[0].process_used_bytes(engine.pid) - before_bytes
        assert grown_bytes >= 16 * MIB
        engine.communicate("\n")


def test_the_second_build_is_the_first(tmp_path: Path) -> None:
    said: list[str] = []
    where = build_runtime(python=PYTHON, out=tmp_path / "out", progress=said.append)
    assert {"libcudart", "libcublas", "libcublasLt", "libnccl"} <= {
        path.name.split(".")[0] for path in where.iterdir()
    }
    assert any(line.startswith("compiled") for line in said)
    said.clear()
    assert build_runtime(python=PYTHON, out=tmp_path / "out", progress=said.append) == where
    assert said == [f"already built: {where}"]
