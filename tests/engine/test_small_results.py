"""Operators on small tensors have results on the simulated GPU, in the real CUDA build of torch.

MEMACCT_ENGINE_PYTHON names its Python; default ``.venv-gpu/bin/python`` of the repository.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memacct.dry_run import engine_side
from memacct.sim import SimulatedGpu

pytestmark = pytest.mark.engine

CHECKS = Path(__file__).with_name("small_results_checks.py")
STARTS = Path(__file__).with_name("small_results_starts.py")
FOLDER = Path(engine_side.__file__).parent


def run(python: Path, program: Path, *arguments: str | Path) -> tuple[int, str]:
    """Runs a program on a machine of its own; its exit status and what it said."""
    with SimulatedGpu(total_bytes="32GiB") as gpu:
        done = gpu.run(
            [python, "-W", "ignore", program, FOLDER, *arguments],
            runtime=True,
            python=python,
            text=True,
            capture_output=True,
            timeout=240,
        )
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", ["results", "left_alone", "compiled"])
def test_small_results(gpu_python: Path, name: str) -> None:
    code, errors = run(gpu_python, CHECKS, name)
    assert code == 0, errors


def test_without_them_sizes_are_wrong(gpu_python: Path) -> None:
    code, _ = run(gpu_python, CHECKS, "without_values")
    assert code == 1


@pytest.fixture(scope="module")
def starts(gpu_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of starts without small results, with them, and with more options."""
    work = tmp_path_factory.mktemp("small-results")
    code, errors = run(gpu_python, STARTS, work)
    assert code == 0, errors
    return {path.stem: json.loads(path.read_text()) for path in work.glob("*.json")}


def test_a_start_takes_the_same_to_the_byte(starts: dict[str, Any]) -> None:
    assert starts["with"]["account"] == starts["without"]["account"]
    assert sum(starts["with"]["done"].values()) > 50
    assert starts["without"]["done"] == {}


def test_lora_starts_and_serves_an_adapter(starts: dict[str, Any]) -> None:
    assert starts["lora"]["done"]["aten::_unique2"] >= 1
    assert [len(tokens) for tokens in starts["lora"]["tokens"]] == [3, 3]
    # two tensors for each projection that can have an adapter
    key = "allocation.all.allocated"
    assert starts["lora"]["account"][key] > starts["with"]["account"][key]
