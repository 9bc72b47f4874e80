"""The results as one JSON file, version by version: what is there is not run again."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "results"


def default_path() -> Path:
    """Named by the machine, as the other results are."""
    kernel = ".".join(re.findall(r"\d+", platform.release())[:2])
    python = ".".join(platform.python_version_tuple()[:2])
    machine = f"{os.cpu_count()}core-linux{kernel}-py{python}"
    return RESULTS / f"vllm-versions-{machine}.json"


def load(path: Path) -> dict[str, Any]:
    """What is there, by target; empty where there is no file."""
    if not path.exists():
        return {}
    versions: dict[str, Any] = json.loads(path.read_text())["versions"]
    return versions


def save(path: Path, versions: dict[str, Any]) -> None:
    """Writes it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"versions": versions}, indent=1) + "\n")
    part.replace(path)


class Book:
    """The file, kept up to date while versions run.

    Each change reads it anew: what another run has written meanwhile stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def versions(self) -> dict[str, Any]:
        """What is there now."""
        return load(self.path)

    def keep(self, name: str, entry: dict[str, Any]) -> None:
        """Replaces one version's results."""
        save(self.path, {**self.versions(), name: entry})


def is_done(entry: dict[str, Any] | None, keys: Iterable[str]) -> bool:
    """Whether a version has a result for each case, so that it need not run again."""
    if entry is None or entry.get("error") is not None:
        return False
    return {cell["key"] for cell in entry.get("cells", ())} >= set(keys)
