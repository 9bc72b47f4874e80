"""Cooperative reservations of GPU memory: what a start is about to take, told to other starts.

A reservation is a small file that its holder keeps locked (``flock``). The kernel drops the lock
when the holder ends, however it ends, so that nothing has to be cleaned up for it to be over:
a file that nobody has locked says nothing, and goes away with the next start. Whoever does not
ask here is not held up: neighbours that start otherwise are seen by what is free alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct import _core
from memacct._errors import ConfigError, SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Self

FOLDER_VARIABLE = "MEMACCT_RESERVATIONS"
SCHEMA_VERSION = 1

_NAME = "memacct-reservations"
_LOCK = "lock"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (empty after a reboot, as reservations are)
_EVERYBODY = 0o1777  # each user's files are that user's
_READABLE = 0o644
_LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.01
_MOST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Another start's reservation that is in force.

    Attributes:
        pid, start_ticks: of its holder, in the holder's PID namespace.
        what: the program that is started.
        bytes_by_uuid: what is still to be taken, by GPU.
    """

    pid: int
    start_ticks: int
    what: str
    bytes_by_uuid: Mapping[str, int]


class Reservations:
    """The machine's reservations; every process that is to see them uses the same folder.

    Args:
        folder: default what ``MEMACCT_RESERVATIONS`` names, else one in ``/dev/shm`` (or the
            temporary folder) for all users. Containers see each other's if they share it.

    Raises:
        ConfigError: `folder`, or the one that the variable names, cannot be used.
        SourceUnavailableError: neither can the default.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        named = os.environ.get(FOLDER_VARIABLE) if folder is None else os.fspath(folder)
        self.folder = _made(Path(named)) if named else _default_folder()
        self._is_exclusive = False

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lets one process at a time look and reserve.

        Raises:
            SourceUnavailableError: somebody else has it for longer than 10 s.
        """
        fd = self._open_lock()
        try:
            _lock_within(fd, _LOCK_WAIT_S, self.folder / _LOCK)
            self._is_exclusive = True
            yield
        finally:
            self._is_exclusive = False
            os.close(fd)

    def held(self) -> tuple[Held, ...]:
        """Returns those in force, and takes away the files of holders that have ended."""
        if not self._is_exclusive:
            with self.exclusive():
                return self.held()
        found = (self._read(path) for path in sorted(self.folder.glob("*.json")))
        return tuple(each for each in found if each is not None)

    def promised(self) -> dict[str, int]:
        """Returns what is reserved and not taken yet, by GPU."""
        sums: dict[str, int] = {}
        for each in self.held():
            for uuid, size in each.bytes_by_uuid.items():
                sums[uuid] = sums.get(uuid, 0) + size
        return sums

    def reserve(self, bytes_by_uuid: Mapping[str, int], what: str = "") -> Reservation:
        """Reserves until it is released or this process ends.

        Args:
            bytes_by_uuid: what is about to be taken, by GPU.
            what: is told to others.

        Raises:
            RuntimeError: outside an ``exclusive()`` block, where another start could choose
                the same memory at the same time.
        """
        if not self._is_exclusive:
            raise RuntimeError("reserve() is for an exclusive() block")
        return Reservation(self, bytes_by_uuid, what)

    def _open_lock(self) -> int:
        path = self.folder / _LOCK
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        # Not O_CREAT at once: in a folder of everybody's the kernel refuses that for others' files.
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, _READABLE)
                os.fchmod(fd, _READABLE)  # whatever the umask
                return fd
            return os.open(path, flags)

    def _read(self, path: Path) -> Held | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            if not _has_locked(fd, fcntl.LOCK_SH):
                return _parse(os.read(fd, _MOST_BYTES))
            with contextlib.suppress(OSError):  # another user's
                path.unlink()
        finally:
            os.close(fd)
        return None


class Reservation:
    """One of this process's; a context manager. Made by ``Reservations.reserve``."""

    def __init__(
        self, reservations: Reservations, bytes_by_uuid: Mapping[str, int], what: str
    ) -> None:
        self._reservations = reservations
        self._what = what
        self._pid = os.getpid()
        (own,) = _core.snapshot_tree(self._pid, host="counters").processes[:1]
        self._start_ticks = own.start_ticks
        name = f"{self._pid}-{self._start_ticks}-{secrets.token_hex(4)}.json"
        self.path = reservations.folder / name
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path, flags, _READABLE)
        os.fchmod(self._fd, _READABLE)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self.bytes_by_uuid: dict[str, int] = {}
        self._write(bytes_by_uuid)

    @property
    def is_held(self) -> bool:
        """Whether it is in force."""
        return self._fd >= 0

    def update(self, bytes_by_uuid: Mapping[str, int]) -> None:
        """Says anew what is still to be taken."""
        if self.is_held and dict(bytes_by_uuid) != self.bytes_by_uuid:
            with self._reservations.exclusive():
                self._write(bytes_by_uuid)

    def release(self) -> None:
        """Ends it. Idempotent."""
        if self.is_held:
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._fd)
            self._fd = -1

    def _write(self, bytes_by_uuid: Mapping[str, int]) -> None:
        self.bytes_by_uuid = dict(bytes_by_uuid)
        data = {
            "schema_version": SCHEMA_VERSION,
            "pid": self._pid,
            "start_ticks": self._start_ticks,
            "what": self._what,
            "written_unix_ns": time.time_ns(),
            "bytes_by_uuid": self.bytes_by_uuid,
        }
        # In place: the lock is on this file.
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(data).encode(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _default_folder() -> Path:
    place = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    try:
        return _made(place / _NAME)
    except ConfigError as error:
        raise SourceUnavailableError("reservations", str(error)) from error


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True)
        folder.chmod(_EVERYBODY)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"reservations folder {folder}: {error.strerror}") from error
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"reservations folder {folder}: not a folder that can be written")
    return folder


def _lock_within(fd: int, wait_s: float, path: Path) -> None:
    ends_s = time.monotonic() + wait_s
    while not _has_locked(fd, fcntl.LOCK_EX):
        if time.monotonic() >= ends_s:
            raise SourceUnavailableError(
                str(path), f"another process has it locked for more than {wait_s:g} s"
            )
        time.sleep(_LOCK_POLL_S)


def _has_locked(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse(text: bytes) -> Held | None:
    """What a file says; None if it is not one of ours, or of a later schema."""
    try:
        data: dict[str, Any] = json.loads(text)
        if data["schema_version"] != SCHEMA_VERSION:
            return None
        sizes = {str(uuid): max(0, int(size)) for uuid, size in data["bytes_by_uuid"].items()}
        return Held(
            pid=int(data["pid"]),
            start_ticks=int(data["start_ticks"]),
            what=str(data["what"]),
            bytes_by_uuid=sizes,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
