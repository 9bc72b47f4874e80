"""The machine's pool of huge pages, which one test at a time may change."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of the default size, which MAP_HUGETLB takes.
COUNT_FILE = Path("/proc/sys/vm/nr_hugepages")
LOCK_FILE = Path(tempfile.gettempdir()) / "memacct-hugepages.lock"


class Pool:
    """The pool, while nobody else changes it."""

    def __init__(self, count_file: Path, before: int) -> None:
        self._count_file = count_file
        self._before = before

    def grow(self, count: int) -> None:
        """Adds pages. Skips the test where that is denied, or the machine has none to spare."""
        try:
            self._count_file.write_text(f"{self._before + count}\n", encoding="utf-8")
        except OSError as error:
            pytest.skip(f"huge pages cannot be reserved: {error}")
        if int(self._count_file.read_text(encoding="utf-8")) < self._before + count:
            pytest.skip(f"the machine has no {count} huge pages to spare")

    def restore(self) -> None:
        """Gives back what was added."""
        if int(self._count_file.read_text(encoding="utf-8")) != self._before:
            self._count_file.write_text(f"{self._before}\n", encoding="utf-8")


@contextlib.contextmanager
def pool(count_file: Path = COUNT_FILE, lock_file: Path = LOCK_FILE) -> Iterator[Pool]:
    """Waits until nobody else changes the pool; leaves it in the end as it was.

    The count is the machine's: two tests that each add to what they read, and write back what
    they read, would take each other's pages away. Skips the test where it may not be changed.
    """
    # Asked first, so that only those who may change the pool ever make the file of the lock.
    if not os.access(count_file, os.W_OK):
        pytest.skip(f"{count_file} is not there or may not be written")
    try:
        lock = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        pytest.skip(f"the lock of the huge pages cannot be opened: {error}")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = Pool(count_file, int(count_file.read_text(encoding="utf-8")))
        try:
            yield held
        finally:
            held.restore()
    finally:
        os.close(lock)


@contextlib.contextmanager
def grown(count: int) -> Iterator[None]:
    """The pool with so many pages more; skips the test where they cannot be had."""
    with pool() as held:
        held.grow(count)
        yield
