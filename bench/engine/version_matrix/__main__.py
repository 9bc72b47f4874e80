"""Makes an environment for each vLLM version, runs its cases, and writes the table.

    python bench/engine/version_matrix --wheel build/wheels/memacct-*.whl [--versions "0.11.0 cpu"]

A version that is done is kept; --again runs it once more. Exit status 1: something did not show
what it should; 2: a version could not be installed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from pathlib import Path
from typing import Any

if not __package__:  # run as a folder
    sys.path.insert(0, str(Path(__file__).parents[1]))
    __package__ = "version_matrix"

from version_matrix import run_version, store, table
from version_matrix.environment import Environment, InstallError, make
from version_matrix.versions import TARGETS, SelectionError, Target, select

ROOT = Path(__file__).parents[3]
STARTED_S = time.monotonic()


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.monotonic() - STARTED_S:6.0f} s  {text}", flush=True)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", default="", help="such as '0.11.0 cpu-0.32.0', gpu, cpu")
    parser.add_argument("--wheel", type=Path, required=True, help="memacct's own wheel")
    parser.add_argument("--again", action="store_true", help="run versions that are done")
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    parser.add_argument("--cases", default="", help="only these, such as 'a b sleep'")
    parser.add_argument("--limit-s", type=float, default=300.0, help="of one start")
    parser.add_argument("--work", type=Path, default=ROOT / ".memacct" / "matrix")
    parser.add_argument("--json", type=Path, default=None, help="default: bench/results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "vllm-versions.md")
    parser.add_argument("--table-only", action="store_true", help="no run: the page from the data")
    return parser.parse_args(words)


def run_target(target: Target, options: argparse.Namespace, book: store.Book) -> None:
    """One version: install, run, remove; each cell is kept as soon as it is there."""
    folder = options.work.absolute() / target.name
    environment = Environment(folder=folder / "environment")
    before = book.versions().get(target.name)
    entry: dict[str, Any] = {
        "target": target.name,
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
    }
    wanted = options.cases.split()
    try:
        entry["about"] = make(target, environment, options.wheel, say)
        cells: list[dict[str, Any]] = []
        for cell in run_version.run(
            target, environment, folder, limit_s=options.limit_s, wanted=wanted, say=say
        ):
            cells.append(cell)
            book.keep(target.name, {**entry, "cells": merged(before, cells)})
    except (InstallError, run_version.NotRunError) as error:
        say(f"{target.name}: {error}")
        book.keep(target.name, {**entry, "cells": merged(before, []), "error": str(error)})
    finally:
        if not options.keep:
            environment.remove()
            run_version.remove_model(folder)


def merged(before: Any, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The new cells, and those of earlier runs that were not run again."""
    new = {cell["key"] for cell in cells}
    kept = [cell for cell in (before or {}).get("cells", ()) if cell["key"] not in new]
    return [*kept, *cells]


def status(entries: list[dict[str, Any]]) -> int:
    """The exit status: 2 an environment is lacking, 1 a case is wrong, else 0."""
    if any(entry.get("error") is not None for entry in entries):
        return 2
    cells = [cell for entry in entries for cell in entry.get("cells", ())]
    return int(any(cell["verdict"] in ("wrong", "not shown") for cell in cells))


def main(words: list[str] | None = None) -> int:
    """Runs what is asked for and not done."""
    options = arguments(words)
    path = options.json or store.default_path()
    try:
        targets = select(options.versions)
    except SelectionError as error:
        print(error, file=sys.stderr)
        return 2
    book = store.Book(path)
    for number, target in enumerate(targets, 1):
        keys = options.cases.split() or run_version.keys(target)
        is_done = store.is_done(book.versions().get(target.name), keys)
        if options.table_only or (is_done and not options.again):
            continue
        say(f"== {number} of {len(targets)}: {target.distribution} {target.version}")
        run_target(target, options, book)
    versions = book.versions()
    options.page.write_text(table.page(shown(versions), versions))
    say(f"table: {options.page}; data: {path}")
    return status([versions[target.name] for target in targets if target.name in versions])


def shown(versions: dict[str, Any]) -> list[Target]:
    """The rows: all that the matrix has, and whatever else was run."""
    known = {target.name for target in TARGETS}
    others = [target for name in versions if name not in known for target in select(name)]
    return [*TARGETS, *others]


if __name__ == "__main__":
    sys.exit(main())
