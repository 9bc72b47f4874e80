"""Builds the CUDA runtime of the simulated GPU against installed CUDA wheels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def build_runtime(
    *,
    python: str | os.PathLike[str] | None = None,
    site: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    raise NotImplementedError
