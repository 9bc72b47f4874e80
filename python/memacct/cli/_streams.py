"""The ends of every command: output that nobody reads, a full disk, a terminal of few letters.

All that is not a command's own affair, and would else end in a traceback. Imports nothing.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: As a program that SIGPIPE ends: 1 would be an answer.
_NOBODY_READS, _WRONG, _INTERRUPTED = 141, 2, 130


@contextmanager
def orderly_streams() -> Iterator[None]:
    """Runs a command line in it; ``SystemExit`` has the status.

    Raises:
        SystemExit: the command's, or 141 if whoever read its output has gone, 2 if that cannot be
            written, 130 if it was interrupted while it started.
    """
    _repair()
    begun_as = _identity()
    try:
        try:
            yield
        except SystemExit:
            # Both exit with 1: typer wraps a pipe that nobody reads, rich replaces it by /dev/null.
            if type(sys.stdout).__name__ == "PacifyFlushWrapper" or _identity() != begun_as:
                raise BrokenPipeError from None
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        raise SystemExit(_NOBODY_READS) from None
    except KeyboardInterrupt:
        _say("interrupted")
        raise SystemExit(_INTERRUPTED) from None
    except OSError as error:
        _discard_output()
        _say(error.strerror or str(error))
        raise SystemExit(_WRONG) from None


def _repair() -> None:
    """Makes both streams writable: one may be closed, or know fewer letters than we print."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _identity() -> tuple[int, int] | None:
    """Which file standard output is."""
    try:
        status = os.fstat(1)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _discard_output() -> None:
    # What is still buffered would fail again when the interpreter ends, and be told there.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _say(text: str) -> None:
    print(f"memacct: {text}", file=sys.stderr)
