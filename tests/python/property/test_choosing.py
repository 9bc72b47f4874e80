"""Which GPU is chosen, and how large a share is advised: laws, and the options of a command."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memacct._units import GIB, parse_seconds
from memacct.accounting.budget import requested_bytes
from memacct.accounting.choosing import CONTEXT_BYTES, Candidate, choose, share_of
from memacct.launch._plan import count_of, utilization_of

SIZES = st.integers(0, 200 * GIB)


@st.composite
def machines(draw: st.DrawFn) -> list[Candidate]:
    return [
        Candidate(
            uuid=f"GPU-{number}",
            index=number,
            name="",
            total_bytes=200 * GIB,
            free_bytes=draw(SIZES),
            promised_bytes=draw(st.one_of(st.just(0), SIZES)),
            still=draw(st.booleans()),
        )
        for number in range(draw(st.integers(1, 5)))
    ]


@given(gpus=machines(), need=st.one_of(st.none(), SIZES), count=st.integers(1, 3))
def test_the_chosen_are_still_have_enough_and_no_other_has_more(
    gpus: list[Candidate], need: int | None, count: int
) -> None:
    needs = None if need is None else {gpu.uuid: need for gpu in gpus}
    chosen = choose(gpus, needs, count)

    def fits(gpu: Candidate) -> bool:
        left = gpu.free_bytes - gpu.promised_bytes
        if need is None:
            return gpu.still and gpu.promised_bytes == 0 and left > 0
        return gpu.still and max(0, left) >= need

    fitting = [gpu for gpu in gpus if fits(gpu)]
    assert len(chosen) in ((count,) if len(fitting) >= count else (0,))
    assert all(gpu in fitting for gpu in chosen)
    if chosen:
        rest = [gpu.available_bytes for gpu in fitting if gpu not in chosen]
        assert max(rest, default=0) <= min(gpu.available_bytes for gpu in chosen)


@given(
    total=st.integers(GIB, 300 * GIB),
    free_ratio=st.floats(0, 1),
    moved=SIZES,
    promised=SIZES,
)
def test_a_share_leaves_its_margins_and_the_next_step_would_not(
    total: int, free_ratio: float, moved: int, promised: int
) -> None:
    lowest = int(total * free_ratio)
    share = share_of(total, lowest, moved, promised)
    left = lowest - promised - CONTEXT_BYTES - max(moved, 256 << 20)
    if share is None:
        assert left < requested_bytes(total, 0.01)
        return
    assert share.asked_bytes == requested_bytes(total, share.utilization) <= left
    more = round(share.utilization * 100 + 1) / 100
    assert more > 1 or requested_bytes(total, more) > left


@pytest.mark.parametrize(
    ("command", "utilization", "count"),
    [
        (["vllm", "serve", "m"], None, 1),
        (["vllm", "serve", "m", "--gpu-memory-utilization", "0.5", "-tp", "2"], 0.5, 2),
        (["vllm", "serve", "--gpu_memory_utilization=0.45", "-tp=4", "-pp", "2"], 0.45, 8),
        (["x", "--gpu-memory-utilization", "0.3", "--gpu-memory-utilization=0.4"], 0.4, 1),
        (["x", "--gpu-memory-utilization", "much", "--tensor-parallel-size", "all"], None, 1),
        (["x", "--gpu-memory-utilization", "7"], None, 1),
        (["x", "--gpu-memory-utilization"], None, 1),
    ],
)
def test_what_a_command_says(command: list[str], utilization: float | None, count: int) -> None:
    assert utilization_of(command) == utilization
    assert count_of(command) == count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120.0), ("10s", 10.0), ("500ms", 0.5), ("2m", 120.0), (" 1.5 h", 5400.0), (3, 3.0)],
)
def test_times(text: str | float, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "1d", "1s2", -1, float("nan"), True, None])
def test_no_times(text: object) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_seconds(text)  # type: ignore[arg-type]
