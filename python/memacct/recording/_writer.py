"""The file of a recording while it is written: one writer, appended to, whole records only."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct._errors import ConfigError, SourceReadError
from memacct.recording._frames import frame
from memacct.recording._reader import is_being_written, is_run_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from typing_extensions import Self


class RunWriter:
    """Appends records, each by one write, so that a SIGKILL keeps all that were written.

    Args:
        path: the file. An earlier recording of that name is kept as ``NAME.old``.

    Raises:
        ConfigError: the file is something else, or is being written.
        SourceReadError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: OSError | None = None
        self.written_bytes = 0
        try:
            _put_aside(path)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            # Command lines may hold what others are not to read.
            self._fd = os.open(path, flags, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            reason = f"cannot be made: {error.strerror}"
            raise SourceReadError(str(path), reason, error.errno or 0) from None

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends records.

        A disk that is full ends the recording, not what is recorded: `error` says so.
        """
        data = b"".join(map(frame, records))
        if not data or self.error is not None:
            return
        try:
            while data:
                count = os.write(self._fd, data)
                self.written_bytes += count
                data = data[count:]
        except OSError as error:
            self.error = error

    def close(self) -> None:
        """Closes the file, which ends the lock by which it is known to be written."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _put_aside(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: name a file in it")
    if not path.exists():
        return
    if not is_run_file(path):
        raise ConfigError(f"{path} is there, and is no recording: it is left alone")
    if is_being_written(path):
        raise ConfigError(f"{path} is being recorded to: name another file")
    path.replace(path.with_name(path.name + ".old"))
