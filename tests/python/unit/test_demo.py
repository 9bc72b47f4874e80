"""Where the demo runs, and what it calls right."""

from __future__ import annotations

from pathlib import Path

import pytest

from memacct._units import GIB, MIB
from memacct.demo import EngineResult, RealWorld, SimulatedWorld, judge
from memacct.demo.scenarios import ALONE, TOO_LARGE
from memacct.demo.world import world_on

PYTHON = Path("python")
CLAMPED = "WARNING [memacct] memacct: KV cache clamped to 4.00 GiB\n"


def found(free_bytes: int) -> dict[str, object]:
    return {"name": "GPU X", "free_bytes": free_bytes, "total_bytes": 48 * GIB}


def test_a_real_gpu_with_room_is_taken() -> None:
    world = world_on(found(32 * GIB), PYTHON)
    assert isinstance(world, RealWorld)
    assert world.total_bytes == 48 * GIB


def test_a_real_gpu_without_room_is_simulated_and_the_reason_told() -> None:
    world = world_on(found(20 * GIB), PYTHON)
    assert isinstance(world, SimulatedWorld)
    assert world.reason == "GPU X has 20.00 GiB free, but the scenarios need 28.80 GiB"


def test_without_a_real_gpu_there_is_nothing_to_say() -> None:
    world = world_on(None, PYTHON)
    assert isinstance(world, SimulatedWorld)
    assert world.reason is None


def result(folder: Path, kv_cache_bytes: int | None, log: str = "") -> EngineResult:
    path = folder / "engine.log"
    path.write_text(log)
    outcome = "failed" if kv_cache_bytes is None else "served"
    return EngineResult(outcome=outcome, log_path=path, wall_s=1.0, kv_cache_bytes=kv_cache_bytes)


@pytest.mark.parametrize(
    ("isolated", "native", "ok"),
    [
        (8 * GIB, 4 * GIB, True),
        (8 * GIB, 8 * GIB, True),
        (8 * GIB, 8 * GIB + 1, False),
        (None, 4 * GIB, False),
        (8 * GIB, None, False),
    ],
)
def test_a_clamped_cache_is_no_larger_than_the_isolated_one(
    tmp_path: Path, isolated: int | None, native: int | None, ok: bool
) -> None:
    alone = result(tmp_path, isolated)
    row = judge(TOO_LARGE, 0, alone, alone, result(tmp_path, native, CLAMPED))
    assert row.ok == ok


def test_a_smaller_cache_without_a_warning_is_wrong(tmp_path: Path) -> None:
    alone = result(tmp_path, 8 * GIB)
    assert not judge(TOO_LARGE, 0, alone, alone, result(tmp_path, 4 * GIB)).ok


@pytest.mark.parametrize(("difference", "ok"), [(0, True), (2 * MIB, True), (-3 * MIB, False)])
def test_elsewhere_the_cache_is_that_of_the_isolated_engine(
    tmp_path: Path, difference: int, ok: bool
) -> None:
    alone = result(tmp_path, 8 * GIB)
    native = result(tmp_path, 8 * GIB + difference)
    assert judge(ALONE, 0, alone, alone, native).ok == ok
