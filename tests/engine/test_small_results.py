"""Operators on small tensors have results on the simulated GPU, in the real CUDA build of torch.

MEMACCT_ENGINE_PYTHON names its Python; default ``.venv-gpu/bin/python`` of the repository.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from memacct.dry_run import engine_side
from memacct.sim import SimulatedGpu

pytestmark = pytest.mark.engine

CHECKS = Path(__file__).with_name("small_results_checks.py")
FOLDER = Path(engine_side.__file__).parent


def run(python: Path, name: str) -> tuple[int, str]:
    """Runs one check on a machine of its own."""
    with SimulatedGpu(total_bytes="32GiB") as gpu:
        done = gpu.run(
            [python, "-W", "ignore", CHECKS, FOLDER, name],
            runtime=True,
            python=python,
            text=True,
            capture_output=True,
            timeout=120,
        )
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", ["results", "left_alone", "compiled"])
def test_small_results(gpu_python: Path, name: str) -> None:
    code, errors = run(gpu_python, name)
    assert code == 0, errors


def test_without_them_sizes_are_wrong(gpu_python: Path) -> None:
    code, _ = run(gpu_python, "without_values")
    assert code == 1
