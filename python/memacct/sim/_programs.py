"""Which Python a program runs in."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def python_of(program: str) -> str:
    """Returns the Python that `program` is or is a script of; this one if it is neither."""
    found = shutil.which(program)
    if found is None:
        return sys.executable
    if Path(found).name.startswith("python"):
        return found
    with Path(found).open("rb") as file:
        first = file.readline(4096)
    interpreter = first[2:].split()[:1] if first.startswith(b"#!") else []
    if interpreter and b"python" in interpreter[0]:
        return interpreter[0].decode()
    return sys.executable
