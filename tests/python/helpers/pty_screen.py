"""A program in a terminal of its own: keys in, frames out, sizes, modes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[()].)")
ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"


class PtyScreen:
    """Started by ``start(command, **popen_options)``, by default ``subprocess.Popen``."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        lines: int = 24,
        start: Callable[..., subprocess.Popen[Any]] = subprocess.Popen,
        **options: Any,
    ) -> None:
        self._ours, self.theirs = pty.openpty()
        self.resize(columns, lines)
        self.before = self.modes()
        self.output = ""
        self.process = start(
            # In a session of its own, whose terminal this is: Ctrl-C there is a signal.
            ["setsid", "--ctty", *command],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            **options,
        )

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.theirs)

    def resize(self, columns: int, lines: int) -> None:
        """As a terminal does; the kernel tells whoever runs in it (SIGWINCH)."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def frame(self) -> list[str]:
        """The lines of the last whole frame, without their styles."""
        frames = self.output.split("\x1b[H")
        return [_SEQUENCE.sub("", line) for line in re.split(r"\r+\n", frames[-1])]

    def wait(self, found: Callable[[list[str]], object], timeout_s: float = 30.0) -> list[str]:
        """Returns the first frame of which something is true."""
        deadline_s = time.monotonic() + timeout_s
        while not found(self.frame()):
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, "it did not come:\n" + "\n".join(self.frame())
            self._read(min(left_s, 0.5))
        return self.frame()

    def wait_text(self, text: str, timeout_s: float = 30.0) -> list[str]:
        return self.wait(lambda frame: text in "\n".join(frame), timeout_s)

    def end(self, timeout_s: float = 30.0) -> int:
        """Waits for its end; returns its exit status."""
        deadline_s = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline_s, "it does not end"
            self._read(0.05)
        while self._read(0.0):
            pass
        return int(self.process.returncode)

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._ours], [], [], timeout_s)[0]:
            return False
        data = b""
        with contextlib.suppress(OSError):
            data = os.read(self._ours, 1 << 16)
        self.output += data.decode(errors="replace")
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._ours)
        os.close(self.theirs)
