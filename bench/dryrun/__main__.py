"""Dry-runs the public logs, each in its own vLLM, and writes how far the answers are from them.

    python -m bench.dryrun [--versions "0.31.0 0.30.0"]

A case that is done is kept; --again runs it once more. Exit status 1: a case has no answer;
2: a version could not be installed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.engine.version_matrix.environment import Environment, InstallError, make
from bench.engine.version_matrix.versions import Target

from . import page, store
from .cases import Case, load
from .environments import complete

ROOT = Path(__file__).parents[2]
STARTED_S = time.monotonic()


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.monotonic() - STARTED_S:6.0f} s  {text}", flush=True)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", default="", help="such as '0.31.0 0.30.0'; empty: all")
    parser.add_argument("--cases", default="", help="only these, by their keys")
    parser.add_argument("--held-out", choices=("with", "without", "only"), default="with")
    parser.add_argument("--again", action="store_true", help="run cases that are done")
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    parser.add_argument("--work", type=Path, default=ROOT / ".memacct" / "dryrun-logs")
    parser.add_argument("--json", type=Path, default=None, help="default: bench/results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "dryrun-logs.md")
    parser.add_argument("--page-only", action="store_true", help="no run: the page from the data")
    return parser.parse_args(words)


def wanted(cases: Sequence[Case], options: argparse.Namespace, done: set[str]) -> list[Case]:
    """The cases to run: newest versions first, within one as they are listed."""
    versions, keys = options.versions.split(), options.cases.split()
    held_out = {"with": (False, True), "without": (False,), "only": (True,)}[options.held_out]
    chosen = [
        case
        for case in cases
        if (not versions or case.vllm in versions)
        and (not keys or case.key in keys)
        and case.held_out in held_out
        and (options.again or case.key not in done)
    ]
    return sorted(chosen, key=lambda case: case.number, reverse=True)


def run_version(version: str, cases: Sequence[Case], options: argparse.Namespace) -> bool:
    """Installs one version, runs its cases, removes it; whether it could be installed."""
    from .run import run_case

    book = store.Book(options.json)
    environment = Environment(folder=options.work.absolute() / version)
    try:
        make(Target(version=version), environment, None, say)
        complete(Target(version=version), environment)
    except InstallError as error:
        say(f"{version}: {error}")
        return False
    try:
        for case in cases:
            say(f"{version}: {case.key}")
            result = run_case(case, environment.python, say)
            say(f"{case.key}: {result.get('error') or page.short(case, result)}")
            book.keep(result)
    finally:
        if not options.keep:
            environment.remove()
    return True


def main(words: Sequence[str] | None = None) -> int:
    """Runs what is asked for and not done, then writes the page."""
    options = arguments(words)
    options.json = options.json or store.default_path()
    cases = load()
    book = store.Book(options.json)
    missing = False
    if not options.page_only:
        done = {key for key, one in book.results().items() if "error" not in one}
        chosen = wanted(cases, options, done)
        for version in dict.fromkeys(case.vllm for case in chosen):
            own = [case for case in chosen if case.vllm == version]
            missing |= not run_version(version, own, options)
    results = book.results()
    options.page.write_text(page.page(cases, results))
    say(f"page: {options.page}; data: {options.json}")
    failed = any("error" in results[case.key] for case in cases if case.key in results)
    return 2 if missing else int(failed)


if __name__ == "__main__":
    sys.exit(main())
