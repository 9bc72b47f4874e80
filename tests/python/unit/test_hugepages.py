"""The tests' own rule for the machine's huge pages: one at a time, and as it was in the end."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import hugepages
import pytest

if TYPE_CHECKING:
    from pathlib import Path


def test_the_pool_is_left_as_it_was_found(tmp_path: Path) -> None:
    count, lock = tmp_path / "count", tmp_path / "lock"
    count.write_text("7\n", encoding="utf-8")

    class TestFailedError(Exception):
        pass

    with pytest.raises(TestFailedError), hugepages.pool(count, lock) as pool:  # noqa: PT012
        pool.grow(3)
        assert int(count.read_text()) == 10
        raise TestFailedError
    assert int(count.read_text()) == 7


def test_nobody_else_changes_the_pool_meanwhile(tmp_path: Path) -> None:
    count, lock = tmp_path / "count", tmp_path / "lock"
    count.write_text("0\n", encoding="utf-8")
    with hugepages.pool(count, lock):
        other = os.open(lock, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_a_machine_without_the_pool_skips(tmp_path: Path) -> None:
    with (
        pytest.raises(pytest.skip.Exception, match="is not there"),
        hugepages.pool(tmp_path / "count", tmp_path / "lock"),
    ):
        pass
    assert not (tmp_path / "lock").exists()
