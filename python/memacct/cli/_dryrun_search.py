"""``memacct dryrun --fit`` and ``--compare``: several answers, with their progress on stderr."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from memacct._errors import ConfigError
from memacct.cli._commands import BAD_NEWS

if TYPE_CHECKING:
    from memacct.dry_run.answers import Answers, Ask
    from memacct.dry_run.request import Request


def run_fit(name: str, request: Request, ask: Ask, *, as_json: bool) -> NoReturn:
    """Fits and prints; exit status 1 if nothing fits, 2 if no engine could be asked."""
    from memacct.dry_run.as_json_search import fit_to_json
    from memacct.dry_run.fit import fit, goal_for
    from memacct.dry_run.machine import machine
    from memacct.dry_run.text_search import fit_text, try_line

    goal = goal_for(name, request, ask, machine)
    found = fit(goal, ask, lambda made: _tell(try_line(goal.name, made)))
    told = [each for each in found.tries if each.run is not None]
    if as_json or told:
        print(json.dumps(fit_to_json(found), indent=1) if as_json else fit_text(found))
    if found.tries and not told:
        last = found.tries[-1]
        raise ConfigError(f"no engine for any {name}; {last.value}: {last.why_not}")
    raise typer.Exit(BAD_NEWS if found.value is None else 0)


def run_compare(names: str, request: Request, answers: Answers, *, as_json: bool) -> NoReturn:
    """Compares and prints; exit status 1 if it fits on no card."""
    from memacct.dry_run.as_json_search import compare_to_json
    from memacct.dry_run.compare import compare, parse_names
    from memacct.dry_run.machine import machine
    from memacct.dry_run.text_search import compare_text, compared_line

    found = compare(
        parse_names(names),
        request,
        answers,
        machine,
        lambda made: _tell(compared_line(made)),
        stop=answers.stop,
    )
    print(json.dumps(compare_to_json(found), indent=1) if as_json else compare_text(found))
    if all(each.run is None for each in found):
        raise ConfigError(f"no answer for any card; {found[0].gpu}: {found[0].why_not}")
    fits = any(each.run is not None and each.run.verdict == "starts" for each in found)
    raise typer.Exit(0 if fits else BAD_NEWS)


def _tell(line: str) -> None:
    print(f"memacct: {line}", file=sys.stderr, flush=True)
