"""``--compare``: the same engine on several cards, one run each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from memacct._errors import ConfigError, MemacctError
from memacct._units import GIB, KIB
from memacct.dry_run.goals import with_card
from memacct.dry_run.refusals import OptionsError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from memacct.dry_run.answers import Ask
    from memacct.dry_run.request import Machine, Request
    from memacct.dry_run.result import DryRun

_MOST_AT_ONCE = 2
_ENGINE_BYTES = 3 * GIB  # of the host, for each engine: two at once want as much each
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One card.

    Attributes:
        gpu: as it was asked for.
        machine: with that card.
        run: the answer; None where there is none.
        why_not: why there is none.
    """

    gpu: str
    machine: Machine
    run: DryRun | None
    why_not: str | None = None


def compare(
    names: Sequence[str],
    request: Request,
    ask: Ask,
    machine_of: Callable[[str], Machine],
    tell: Callable[[Compared], None] = lambda _: None,
    *,
    stop: threading.Event | None = None,
) -> tuple[Compared, ...]:
    """Answers a request for several cards, in the order in which they are named.

    Args:
        names: of cards, or sizes.
        request: whose machine gives the number of GPUs and the neighbours.
        ask: answers a request.
        machine_of: the machine with a card of that name.
        tell: called with each as it is known.
        stop: is set when this is left early, as by Ctrl-C, to end what `ask` has started.

    Raises:
        ConfigError: an unknown card, or none at all, before anything is started; options that
            no engine takes, on whatever card.
    """
    if not names:
        raise ConfigError("--compare names no card, such as a100-80,h100,l40s")
    machines = [with_card(request.machine, machine_of(name)) for name in names]

    def one(name: str, machine: Machine) -> Compared:
        try:
            run = ask(replace(request, machine=machine), False)
            made = Compared(gpu=name, machine=machine, run=run)
        except OptionsError:
            raise
        except MemacctError as error:
            made = Compared(gpu=name, machine=machine, run=None, why_not=str(error))
        tell(made)
        return made

    with ThreadPoolExecutor(at_once(available_bytes())) as pool:
        try:
            return tuple(pool.map(one, names, machines))
        except BaseException:
            if stop is not None:
                stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def parse_names(text: str) -> tuple[str, ...]:
    """The cards in "a100-80,h100,l40s", each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def at_once(free_bytes: int | None) -> int:
    """How many engines start at the same time; one if nobody knows what is free."""
    return max(1, min(_MOST_AT_ONCE, (free_bytes or 0) // _ENGINE_BYTES))


def available_bytes() -> int | None:
    """The host's memory that programs can still get; None where the kernel does not say."""
    try:
        lines = _MEMINFO.read_text().splitlines()
        return next(int(line.split()[1]) * KIB for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
