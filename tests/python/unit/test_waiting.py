"""Waiting until enough is free: as long as must be, no longer, and not on a falling slope."""

from __future__ import annotations

import pytest

from memacct.accounting.waiting import wait_until_free

FOR_EVER = 10**9


class Device:
    """Free memory by the time that has been waited."""

    def __init__(self, *steps: tuple[float, int]) -> None:
        self.steps = steps
        self.now_s = 0.0

    def read(self) -> int:
        return [free for since_s, free in self.steps if since_s <= self.now_s + 1e-9][-1]

    def pause(self, seconds: float) -> float:
        self.now_s += seconds
        return seconds


@pytest.mark.parametrize(
    ("steps", "wait_s", "free_bytes", "waited_s"),
    [
        pytest.param([(0, 10)], 5, 10, 0.5, id="enough, and still"),
        pytest.param([(0, 1), (2, 10)], 5, 10, 2.5, id="still half a second after it is enough"),
        pytest.param([(0, 1), (2, 10), (2.3, 20)], 5, 20, 2.8, id="still moving"),
        pytest.param([(0, 1)], 5, 1, 5.0, id="never"),
        pytest.param([(0, 1), (4.8, 10)], 5, 10, 5.0, id="enough, but time is up"),
        pytest.param([(0, 1)], 0, 1, 0.0, id="no time at all"),
        pytest.param([(0, 12), (0.2, 8), (1, 11)], 5, 11, 1.5, id="taken again meanwhile"),
    ],
)
def test_waits_until_it_is_enough_and_still(
    steps: list[tuple[float, int]], wait_s: float, free_bytes: int, waited_s: float
) -> None:
    device = Device(*steps)
    waited = wait_until_free(device.read, 10, wait_s=wait_s, pause=device.pause)
    assert waited.free_bytes == free_bytes
    assert waited.waited_s == pytest.approx(waited_s, abs=0.11)


def test_it_never_waits_longer_than_it_may() -> None:
    device = Device((0, 0))
    waited = wait_until_free(device.read, FOR_EVER, wait_s=1.05, pause=device.pause)
    assert waited.waited_s == pytest.approx(1.05)
