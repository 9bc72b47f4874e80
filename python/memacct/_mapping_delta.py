"""What changed in a process's mappings, by kind and by file: signed sums and their table.

Affine, as the deltas of ``memacct._types``: changes can be added and negated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memacct._printable import printable
from memacct._units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_SHOWN_FILES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingChange:
    """By how much the mappings of one kind, or of one file, changed.

    What was not mapped had 0 bytes: a new file's change is its whole size. None is a size
    that either reading's source did not tell.
    """

    name: str
    mappings_count: int
    vms_bytes: int | None
    rss_bytes: int | None
    pss_bytes: int | None
    anonymous_bytes: int | None
    dirty_bytes: int | None
    swap_bytes: int | None
    held_bytes: int | None
    reclaimable_bytes: int | None

    def __add__(self, other: MappingChange, /) -> MappingChange:
        if not isinstance(other, MappingChange):
            return NotImplemented
        if self.name != other.name:
            raise ValueError(f"these are changes of {self.name} and of {other.name}")
        return _combined(self.name, self, other, lambda a, b: a + b)

    def __neg__(self) -> MappingChange:
        return _combined(self.name, _nothing(self), self, lambda a, b: a - b)

    def __bool__(self) -> bool:
        return any(getattr(self, term) for term in _TERMS)


_TERMS = tuple(name for name in MappingChange.__slots__ if name != "name")


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingsDelta:
    """What grew and shrank, by kind and by file; ``str()`` is a table.

    Both are sorted by the change of rss, the largest (of either sign) first; what did not
    change at all is left out.
    """

    pid: int
    kinds: tuple[MappingChange, ...]
    files: tuple[MappingChange, ...]
    unknown_terms: tuple[str, ...] = ()  # also of what is left out; sorted

    def __add__(self, other: MappingsDelta, /) -> MappingsDelta:
        if not isinstance(other, MappingsDelta):
            return NotImplemented
        if self.pid != other.pid:
            raise ValueError(f"these are of two processes, pid {self.pid} and pid {other.pid}")
        unknown = (self.unknown_terms, other.unknown_terms)
        return MappingsDelta(
            pid=self.pid,
            kinds=joined(self.kinds, other.kinds, lambda a, b: a + b, unknown),
            files=joined(self.files, other.files, lambda a, b: a + b, unknown),
            unknown_terms=tuple(sorted({*unknown[0], *unknown[1]})),
        )

    def __neg__(self) -> MappingsDelta:
        return MappingsDelta(
            pid=self.pid,
            kinds=tuple(-change for change in self.kinds),
            files=tuple(-change for change in self.files),
            unknown_terms=self.unknown_terms,
        )

    def __str__(self) -> str:
        shown = self.files[:_SHOWN_FILES]
        left_out = len(self.files) - len(shown)
        lines = [HEADER.format("kind"), *map(_change_line, self.kinds)]
        if shown:
            lines += ["", HEADER.format("file"), *map(_change_line, shown)]
        if left_out:
            lines.append(f"... and {left_out} more files")
        return "\n".join(lines)


_Unknown = tuple[tuple[str, ...], tuple[str, ...]]
_KNOWN: _Unknown = ((), ())


def _term(totals: Any, term: str, unknown: tuple[str, ...]) -> int | None:
    if totals is None:
        return None if term in unknown else 0
    value: int | None = getattr(totals, term)
    return value


def _combined(
    name: str,
    one: Any,
    other: Any,
    combine: Callable[[int, int], int],
    unknown: _Unknown = _KNOWN,
) -> MappingChange:
    terms: dict[str, Any] = {}
    for term in _TERMS:
        a, b = _term(one, term, unknown[0]), _term(other, term, unknown[1])
        terms[term] = None if a is None or b is None else combine(a, b)
    return MappingChange(name=name, **terms)


def _nothing(change: MappingChange) -> MappingChange:
    zeros = {term: None if getattr(change, term) is None else 0 for term in _TERMS}
    return MappingChange(name=change.name, **zeros)  # type: ignore[arg-type]


def joined(
    ones: Iterable[Any],
    others: Iterable[Any],
    combine: Callable[[int, int], int],
    unknown: _Unknown = _KNOWN,
) -> tuple[MappingChange, ...]:
    """Returns ``combine(one, other)`` of the items of the same name; what changed, sorted.

    What only one side has was, or changed by, 0 on the other, except for the terms that are
    ``unknown`` there.
    """
    mine = {item.name: item for item in ones}
    rest = {item.name: item for item in others}
    names = [*mine, *(name for name in rest if name not in mine)]
    changes = [_combined(n, mine.get(n), rest.get(n), combine, unknown) for n in names]
    return tuple(sorted(filter(None, changes), key=lambda c: (-abs(c.rss_bytes or 0), c.name)))


def unknown_terms(totals: Iterable[Any]) -> tuple[str, ...]:
    """Returns the terms that any of ``totals`` does not know."""
    return tuple(sorted({t for each in totals for t in _TERMS if getattr(each, t) is None}))


# ---------------------------------------------------------------- tables

HEADER = "{:<44}" + "".join(
    f"{title:>13}" for title in ("mapped", "resident", "held", "reclaimable", "dirty")
)
SHOWN_TERMS = ("vms_bytes", "rss_bytes", "held_bytes", "reclaimable_bytes", "dirty_bytes")
_WIDTH = 44


def line(name: str, values: Sequence[int | None], *, signed: bool) -> str:
    name = printable(name)
    if len(name) > _WIDTH:
        name = "…" + name[1 - _WIDTH :]  # a path's end tells more than its beginning
    return f"{name:<{_WIDTH}}" + "".join(f"{_cell(value, signed=signed):>13}" for value in values)


def _cell(value: int | None, *, signed: bool) -> str:
    if value is None:
        return "?"
    return ("+" if signed and value > 0 else "") + format_bytes(value)


def _change_line(change: MappingChange) -> str:
    return line(change.name, [getattr(change, term) for term in SHOWN_TERMS], signed=True)
