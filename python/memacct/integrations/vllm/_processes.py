"""Names of the other processes on a device, where they can be told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from memacct._printable import printable

if TYPE_CHECKING:
    from memacct._core import DeviceMemory

_LONGEST = 40


def process_name(pid: int, device: DeviceMemory) -> str | None:
    """Returns what ``pid`` calls itself; None where it cannot be read.

    Where this process is listed by a number that is not its own here, others' numbers are of
    another namespace too, and the name found under them would be somebody else's.
    Source: ``/proc/<pid>/cmdline``, else ``comm``.
    """
    if device.attribution.source != "pid":
        return None
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        text = _title(arguments) or Path(f"/proc/{pid}/comm").read_bytes()
    except OSError:
        return None
    name = printable(text.decode(errors="surrogateescape").strip())
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _title(arguments: list[bytes]) -> bytes:
    """The program and, of an interpreter, what it runs."""
    words = [Path(argument.decode(errors="surrogateescape")).name for argument in arguments[:3]]
    if len(arguments) == 1:
        words = [arguments[0].decode(errors="surrogateescape")]  # a title that it gave itself
    return " ".join(word for word in words if not word.startswith("-")).encode(
        errors="surrogateescape"
    )
