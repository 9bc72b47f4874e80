"""The results as one JSON file, case by case: what is there is not run again."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"


def default_path() -> Path:
    """Named by the machine, as the other results are."""
    kernel = ".".join(re.findall(r"\d+", platform.release())[:2])
    python = ".".join(platform.python_version_tuple()[:2])
    return RESULTS / f"dryrun-logs-{os.cpu_count()}core-linux{kernel}-py{python}.json"


class Book:
    """The file, kept up to date while cases run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def results(self) -> dict[str, Any]:
        """What is there now, by the cases' keys."""
        if not self.path.exists():
            return {}
        results: dict[str, Any] = json.loads(self.path.read_text())["results"]
        return results

    def keep(self, result: dict[str, Any]) -> None:
        """Replaces one case's result; the file is written whole or not at all."""
        results = {**self.results(), result["key"]: result}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({"results": results}, indent=1) + "\n")
        part.replace(self.path)
