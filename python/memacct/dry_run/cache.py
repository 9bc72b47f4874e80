"""Answers kept for requests that are equal in all that determines them; see `Fingerprint`."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct.dry_run.as_json import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.dry_run.fingerprint import Fingerprint
    from memacct.dry_run.request import Request
    from memacct.dry_run.result import DryRun

#: Raised with every change of what an entry means; older ones are then never read.
ENTRY = 1
_MOST_ENTRIES = 512
_MOST_BYTES = 64 << 20


def default_folder() -> Path:
    """Where answers are kept: below XDG_CACHE_HOME, by default ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "memacct" / "dryrun"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """A folder of answers.

    An entry that is torn, damaged or of another schema is as if it were not there, and so is a
    folder that cannot be written: a dry run never fails for its cache.

    Attributes:
        folder: made when it is first written.
        most_entries: the least recently used go beyond it.
        most_bytes: likewise.
    """

    folder: Path
    most_entries: int = _MOST_ENTRIES
    most_bytes: int = _MOST_BYTES

    def get(self, fingerprint: Fingerprint, request: Request) -> DryRun | None:
        """The answer to an equal request, as an answer to this one."""
        path = self._path(fingerprint)
        run = _read(path)
        if run is None:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # what is asked again is kept longest
        return replace(run, request=request, origin="cache")

    def relatives(self, fingerprint: Fingerprint) -> Iterator[DryRun]:
        """Runs of requests that differ only in what may be interpolated, the newest first."""
        paths = list(self.folder.glob(f"{fingerprint.family}-*.json"))
        for path in sorted(paths, key=_age_ns, reverse=True):
            run = _read(path)
            if run is not None:
                yield run

    def put(self, fingerprint: Fingerprint, run: DryRun) -> None:
        """Keeps a run. Answers that were themselves taken from here are not kept again."""
        if run.origin != "run":
            return
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self._path(fingerprint), {"entry": ENTRY, "run": to_json(run)})
            self._forget_oldest()

    def _path(self, fingerprint: Fingerprint) -> Path:
        return self.folder / f"{fingerprint.family}-{fingerprint.rest}.json"

    def _forget_oldest(self) -> None:
        kept = sorted(self.folder.glob("*.json"), key=_age_ns, reverse=True)
        held_bytes = 0
        for number, path in enumerate(kept):
            held_bytes += path.stat().st_size
            if number and (number >= self.most_entries or held_bytes > self.most_bytes):
                path.unlink(missing_ok=True)


def _age_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # another process removed it
        return 0


def _read(path: Path) -> DryRun | None:
    try:
        data = json.loads(path.read_bytes())
        return from_json(data["run"]) if data["entry"] == ENTRY else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, data: Any) -> None:
    """Writes a file that others see whole or not at all."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            json.dump(data, file)
        os.replace(name, path)  # noqa: PTH105 (the name is a str)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
