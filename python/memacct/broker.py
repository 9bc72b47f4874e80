"""The broker: tells a container's process its number in the machine's own PID namespace.

A small helper that runs outside the containers and listens on a UNIX socket that is mounted
into them. The kernel says who connects (SO_PEERCRED, in the broker's own PID namespace); the
broker says that number back, and where it counts, and closes. It reads nothing that a client
sends, tells nobody about anyone else and keeps nothing of a connection, so that a client can
neither hold one nor learn more than its own number.

    memacct-broker 1 pid 31042 pidns 4026531836
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from memacct._errors import ConfigError, SourceUnavailableError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

DEFAULT_SOCKET = Path("/run/memacct/broker.sock")
# PROC_PID_INIT_INO, include/linux/proc_ns.h: fixed, and no other namespace has it.
INITIAL_PID_NAMESPACE = 4026531836

_UCRED = struct.Struct("3i")  # pid, uid, gid
_BACKLOG_COUNT = 64
_LONGEST_PATH_BYTES = 107  # sockaddr_un.sun_path without its end
_ANYBODY = 0o666  # to connect takes the right to write; what is told is the caller's own number


def own_pid_namespace() -> int:
    """Returns the inode of this process's PID namespace.

    Raises:
        SourceUnavailableError: there is no procfs here.
    """
    path = "/proc/self/ns/pid"
    try:
        return Path(path).stat().st_ino
    except OSError as error:
        raise SourceUnavailableError(path, error.strerror or str(error)) from error


class Broker:
    """Listens from its ``with`` block on; ``serve`` answers until ``stop``.

    Args:
        path: of the socket. Its folder is made if it is missing; a socket that nobody
            listens on any more is replaced.

    Raises:
        ConfigError: there is something else at `path`, or it may not be made there.

    Note:
        Run it in the machine's own PID namespace: clients refuse the numbers of any other.
    """

    def __init__(self, path: str | os.PathLike[str] = DEFAULT_SOCKET) -> None:
        self.path = Path(path)
        self.pid_namespace = own_pid_namespace()
        self.answers_count = 0
        self._listener: socket.socket | None = None
        self._inode = 0
        self._wake_reader, self._wake_writer = -1, -1

    def __enter__(self) -> Self:
        if len(os.fsencode(self.path)) > _LONGEST_PATH_BYTES:
            raise ConfigError(
                f"socket={str(self.path)!r} is longer than {_LONGEST_PATH_BYTES} bytes"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._clear()
            self._listen()
        except OSError as error:
            self.close()
            raise ConfigError(
                f"socket={str(self.path)!r} cannot be made: {error.strerror}: {error.filename}"
            ) from error
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def serve(self) -> None:
        """Answers whoever connects, until ``stop``."""
        if self._listener is None:
            raise RuntimeError("Broker is a context manager: use it in a with statement")
        while True:
            ready, _, _ = select.select([self._listener.fileno(), self._wake_reader], [], [])
            if self._wake_reader in ready:
                return
            self._answer_all(self._listener)

    def stop(self) -> None:
        """Lets ``serve`` return; callable from a signal handler and from other threads."""
        if self._wake_writer >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_writer, b".")

    def close(self) -> None:
        """Ends it and removes its socket, unless another one is there by now."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                if self.path.lstat().st_ino == self._inode:
                    self.path.unlink()
            self._listener.close()
            self._listener = None
        for fd in (self._wake_reader, self._wake_writer):
            if fd >= 0:
                os.close(fd)
        self._wake_reader = self._wake_writer = -1

    def _clear(self) -> None:
        """Removes what a broker that was killed has left behind, and nothing else."""
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise ConfigError(f"socket={str(self.path)!r} is there and is no socket")
        with _new_socket() as probe:
            code = probe.connect_ex(str(self.path))
        if code != errno.ECONNREFUSED:
            raise ConfigError(f"socket={str(self.path)!r}: another process listens there")
        self.path.unlink()

    def _listen(self) -> None:
        listener = _new_socket()
        try:
            listener.bind(str(self.path))
            self._inode = self.path.lstat().st_ino
            self.path.chmod(_ANYBODY)
            listener.listen(_BACKLOG_COUNT)
        except BaseException:
            listener.close()
            raise
        self._listener = listener

    def _answer_all(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.ECONNABORTED, errno.EINTR):
                    continue
                raise
            # Whatever a client does, the next one is answered.
            with connection, contextlib.suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, _, _ = _UCRED.unpack(credentials)
        text = f"memacct-broker 1 pid {pid} pidns {self.pid_namespace}\n"
        connection.setblocking(False)
        connection.send(text.encode(), socket.MSG_NOSIGNAL)
        self.answers_count += 1


def _new_socket() -> socket.socket:
    """A socket of whole messages that waits for nobody."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    made.setblocking(False)
    return made
