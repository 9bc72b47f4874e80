"""What an exporter read at one scrape, and the families of metrics that are made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memacct._core import ProcessMemory, Snapshot

#: The process of a row that sums up all those beyond the bound.
OTHER = "other"

UNKNOWN_LABELS = ("uuid", "what", "why")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who a process is, as far as this machine's procfs tells; "" is not known.

    Attributes:
        name: the command, at most 15 bytes.
        role: engine_core, worker, api_server, ..., python, shell.
        container: the id of its container.
    """

    name: str = ""
    role: str = ""
    container: str = ""


NOBODY = Person()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The processes that count as ``own`` and ``tree``, instead of the exporter's own.

    Attributes:
        own_pids: those that were named.
        tree_pids: their descendants; empty unless they are asked for.
        pids_known: the driver's numbers are those of this machine's procfs.
    """

    own_pids: frozenset[int]
    tree_pids: frozenset[int] = frozenset()
    pids_known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What the foreign processes of a device did, summed up over all scrapes so far."""

    allocations_count: int = 0
    allocated_bytes: int = 0
    releases_count: int = 0
    released_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All that one scrape has read.

    Attributes:
        snapshot: its devices are None where there is no driver, or reading them failed.
        processes: those whose host memory is told.
        ended_pids: those that were to be watched and have ended.
        watched: who is own and tree; None: the exporter itself.
        people: who the driver's pids are.
        moves: by the device's uuid.
        problems: (what, why) of what could not be read.
        duration_s: what the reading took.
        version: memacct's.
        errors_count: scrapes so far in which the devices could not be read.
    """

    snapshot: Snapshot
    processes: tuple[ProcessMemory, ...] = ()
    ended_pids: tuple[int, ...] = ()
    watched: Watched | None = None
    people: Mapping[int, Person] = field(default_factory=dict)
    moves: Mapping[str, Moves] = field(default_factory=dict)
    problems: tuple[tuple[str, str], ...] = ()
    duration_s: float = 0.0
    version: str = ""
    errors_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A metric with all its samples: label values, in the order of the names, and a value.

    A counter's name ends in ``_total``.
    """

    name: str
    text: str
    kind: Literal["gauge", "counter"]
    labels: tuple[str, ...]
    samples: tuple[tuple[tuple[str, ...], float], ...]


class Families:
    """Collects samples by metric; what is unknown is told apart, and has no sample."""

    def __init__(self) -> None:
        self._samples: dict[str, list[tuple[tuple[str, ...], float]]] = {}
        self._about: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._unknown: dict[tuple[str, str, str], float] = {}

    def add(self, name: str, text: str, value: float, labels: Mapping[str, str]) -> None:
        """Adds a sample; ``text`` says what the metric is."""
        self._about.setdefault(name, (text, tuple(labels)))
        self._samples.setdefault(name, []).append((tuple(labels.values()), value))

    def add_known(
        self,
        name: str,
        text: str,
        value: float | None,
        labels: Mapping[str, str],
        why: str,
    ) -> None:
        """Adds a sample, or that it is unknown, and why."""
        if value is None:
            self.unknown(name.removeprefix("memacct_"), why, labels.get("uuid", ""))
        else:
            self.add(name, text, value, labels)

    def unknown(self, what: str, why: str, uuid: str = "") -> None:
        """Says that something is not known."""
        self._unknown[uuid, what, why] = 1

    def families(self) -> tuple[Family, ...]:
        """Returns all of it."""
        text = "What is not known, so that it has no sample, and why."
        for labels in sorted(self._unknown):
            self.add("memacct_unknown", text, 1, dict(zip(UNKNOWN_LABELS, labels, strict=True)))
        return tuple(
            Family(
                name=name,
                text=self._about[name][0],
                kind="counter" if name.endswith("_total") else "gauge",
                labels=self._about[name][1],
                samples=tuple(samples),
            )
            for name, samples in self._samples.items()
        )


def plain(families: Sequence[Family]) -> list[dict[str, object]]:
    """Returns families as data for JSON; what is not limited is null."""
    return [
        {
            "name": family.name,
            "help": family.text,
            "kind": family.kind,
            "samples": [
                {
                    "labels": dict(zip(family.labels, labels, strict=True)),
                    "value": None if math.isinf(value) else value,
                }
                for labels, value in family.samples
            ],
        }
        for family in families
    ]
