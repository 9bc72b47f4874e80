"""Whether a run answers a request that is only written otherwise: a default that is given, or not.

What an option that is not given comes to is taken from the run, where the engine has told it; it is
never guessed. Where it has not, an option that only one of both gives makes two questions of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct.dry_run.arguments import is_given, value_of
from memacct.dry_run.between import CHOSEN, LENGTH, UTILIZATION
from memacct.dry_run.fingerprint import BETWEEN

if TYPE_CHECKING:
    from memacct.dry_run.request import Request
    from memacct.dry_run.result import DryRun

#: Before the name of a setting: what the engine makes of it when nobody gives it.
DEFAULT = "default_"
_SETTINGS = {UTILIZATION: "gpu_memory_utilization", LENGTH: "max_model_len"}


def is_alike(request: Request, run: DryRun) -> bool:
    """Whether the engine makes the same of the request as of that of a run of its family."""
    ours, theirs = request.machine.neighbours_bytes, run.request.machine.neighbours_bytes
    return sorted(ours) == sorted(theirs) and all(_same(name, request, run) for name in BETWEEN)


def _same(name: str, request: Request, run: DryRun) -> bool:
    ours, theirs = (value_of(each.arguments, name) for each in (request, run.request))
    if ours == theirs:
        return True
    if name not in _SETTINGS or CHOSEN & {ours, theirs} or is_given(request.arguments, "--config"):
        return False
    setting = _SETTINGS[name]
    default = run.settings.get(DEFAULT + setting)
    if default is None or run.settings.get(setting) != default:
        return False
    # What the run was told, if anything, came to the default; so must what is asked.
    return ours is None or _number(ours) == default


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
