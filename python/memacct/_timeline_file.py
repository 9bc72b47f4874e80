"""The file of a timeline: whole lines appended, and no error of the disk goes further."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from memacct._core import append_line


def warn(text: str, *values: object) -> bool:
    """Logs a warning; returns False, and is silent, where even that cannot be done.

    The first import of logging opens files, which a process may have none left for.
    """
    try:
        import logging

        logging.getLogger("memacct").warning(text, *values)
    except (ImportError, OSError):
        return False
    return True


_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class LineFile:
    """Appends each line by one write, so that what was written survives the process.

    A disk that is full or a folder that cannot be written must not take the program down:
    the first failure is logged, every line that is not in the file is counted.
    """

    __slots__ = (
        "_before",
        "_fd",
        "_has_failed",
        "_header",
        "_identity",
        "_lock",
        "lost_count",
        "path",
    )

    def __init__(self, path: Path, header: bytes, *, exclusive: bool = False) -> None:
        """Opens ``path`` for appending, and writes ``header``.

        Args:
            path: the file; its folder is made if it is not there.
            header: the line that must be in the file before any other of ours.
            exclusive: whether a file that is there already is a failure.
        """
        self.path = path
        self.lost_count = 0
        self._fd = -1
        self._identity = (0, 0)
        self._has_failed = False
        self._header = header
        self._before = header
        # A signal's handler may write a line of its own while a failure is dealt with.
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open(os.O_EXCL if exclusive else 0)
        except OSError as error:
            self._report(str(error))
        else:
            self.write(b"")

    @property
    def is_open(self) -> bool:
        """Whether lines go to the file."""
        return self._fd >= 0

    def write(self, line: bytes) -> None:
        """Appends a line, which ends in a newline. Never raises OSError."""
        if self._fd < 0:
            self.lost_count += bool(line)
            return
        text = self._before + line
        written = append_line(self._fd, *self._identity, text)
        if written == -errno.EBADF and self._reopen():
            text = self._before + line
            written = append_line(self._fd, *self._identity, text)
        if written != len(text):
            self._lose(line, written, len(text))
        elif self._before:
            self._before = b""

    def close(self) -> None:
        """Closes the file; lines that come later are lost, and counted."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and _identity(fd) == self._identity:
            os.close(fd)

    def _open(self, flags: int) -> None:
        self._fd = os.open(self.path, _APPEND | flags, 0o644)
        self._identity = _identity(self._fd)
        if os.fstat(self._fd).st_size > 0 and not self._before.startswith(b"\n"):
            # A killed writer may have left half a line.
            self._before = b"\n" + self._before

    def _reopen(self) -> bool:
        # Programs that turn into daemons close every descriptor. What has the number now is
        # not ours to write to, nor to close.
        with self._lock:
            if _identity(self._fd) == self._identity:
                return True  # another thread was faster
            self._before = self._header  # the file itself may be another one by now
            try:
                self._open(0)
            except OSError as error:
                self._fd = -1
                self._report(str(error))
            return self._fd >= 0

    def _lose(self, line: bytes, written: int, length: int) -> None:
        with self._lock:
            self.lost_count += bool(line)
            if written > 0:
                # Half a line must not swallow the next one.
                has_header = written >= len(self._before)
                self._before = b"\n" if has_header else b"\n" + self._header
            half = f"only {written} of {length} bytes were written"
            self._report(half if written >= 0 else os.strerror(-written))

    def _report(self, reason: str) -> None:
        if self._has_failed:
            return
        self._has_failed = True  # already here: a handler may make an entry of its own
        self._has_failed = warn(
            "the timeline stays in memory where %s could not be written: %s", self.path, reason
        )


def _identity(fd: int) -> tuple[int, int]:
    try:
        found = os.fstat(fd)
    except OSError:
        return -1, -1
    return found.st_dev, found.st_ino
