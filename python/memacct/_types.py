"""Signed differences of readings; the readings themselves are native (``memacct._core``).

Affine, as datetime and timedelta: snapshots can be subtracted, not added; deltas can be
added and negated. A term that either reading did not know is None. What has no difference
(peaks, capacities, limits, names) has no field.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from memacct._units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Self

    from memacct._mapping_delta import MappingsDelta


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def _difference(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a - b


class _Terms:
    """The arithmetic of a group of signed terms; ``uuid`` names the group and is kept."""

    __slots__ = ()

    @classmethod
    def _names(cls) -> Iterator[str]:
        return (field.name for field in fields(cls) if field.name != "uuid")  # type: ignore[arg-type]

    @classmethod
    def _of(cls, terms: dict[str, Any], source: object) -> Self:
        uuid = getattr(source, "uuid", None)
        return cls(**terms) if uuid is None else cls(uuid=uuid, **terms)  # type: ignore[call-arg]

    @classmethod
    def _term(cls, reading: object, name: str) -> Any:
        return getattr(reading, name)

    @classmethod
    def between(cls, after: object, before: object) -> Self:
        """Returns ``after - before``, term by term, of two readings of one thing."""
        terms = {n: _difference(cls._term(after, n), cls._term(before, n)) for n in cls._names()}
        return cls._of(terms, after)

    @classmethod
    def unknown(cls, reading: object) -> Self:
        """Returns no known term, for what only one of two readings has."""
        return cls._of(dict.fromkeys(cls._names()), reading)

    def __add__(self, other: Self, /) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        terms = {n: _sum(getattr(self, n), getattr(other, n)) for n in self._names()}
        return self._of(terms, self)

    def __neg__(self) -> Self:
        terms = {n: _difference(0, getattr(self, n)) for n in self._names()}
        return self._of(terms, self)

    def changes(self) -> Iterator[tuple[str, int]]:
        """Yields the name and the value of each term that is not zero."""
        for name in self._names():
            if value := getattr(self, name):
                yield name, value


class _LimitTerms(_Terms):
    """Terms of a reading, or of the pressure and the events that it holds, if they are known."""

    __slots__ = ()

    @classmethod
    def _term(cls, reading: object, name: str) -> Any:
        for part in (reading, *(getattr(reading, held, None) for held in ("pressure", "events"))):
            if hasattr(part, name):
                return getattr(part, name)
        return None


def _format_term(name: str, value: int) -> str:
    if name.endswith("_bytes"):
        return ("+" if value > 0 else "") + format_bytes(value)
    return f"{value / 1e9:+.6f} s" if name.endswith("_ns") else f"{value:+d}"


TermsT = TypeVar("TermsT", bound=_Terms)


def _sum_terms(a: TermsT | None, b: TermsT | None) -> TermsT | None:
    return None if a is None or b is None else a + b


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDelta(_Terms):
    """Change of a process's host memory. See ``HostMemory`` for the terms."""

    vms_bytes: int
    rss_bytes: int
    shared_bytes: int | None
    rss_anon_bytes: int | None
    rss_file_bytes: int | None
    rss_shmem_bytes: int | None
    swap_bytes: int | None
    hugetlb_bytes: int | None
    locked_bytes: int | None
    pinned_bytes: int | None
    page_tables_bytes: int | None
    held_bytes: int | None
    reclaimable_bytes: int | None
    rss_exact_bytes: int | None
    pss_bytes: int | None
    pss_anon_bytes: int | None
    pss_file_bytes: int | None
    pss_shmem_bytes: int | None
    uss_bytes: int | None
    shared_clean_bytes: int | None
    shared_dirty_bytes: int | None
    private_clean_bytes: int | None
    private_dirty_bytes: int | None
    anonymous_bytes: int | None
    swap_pss_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupDelta(_LimitTerms):
    """Change of what counts against a control group's limit. See ``CgroupMemory``.

    stalled and counts are what its ``pressure`` and ``events`` counted meanwhile.
    """

    usage_bytes: int | None
    inactive_file_bytes: int | None
    active_file_bytes: int | None
    working_set_bytes: int | None
    uncached_usage_bytes: int | None
    swap_usage_bytes: int | None
    some_stalled_ns: int | None
    full_stalled_ns: int | None
    high_count: int | None
    max_count: int | None
    oom_count: int | None
    oom_kill_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemDelta(_LimitTerms):
    """Change of the machine's memory. See ``SystemMemory``."""

    free_bytes: int
    available_bytes: int | None
    cached_bytes: int | None
    shmem_bytes: int | None
    dirty_bytes: int | None
    swap_free_bytes: int | None
    hugetlb_bytes: int | None
    some_stalled_ns: int | None
    full_stalled_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDelta(_Terms):
    """Change of a device's memory. See ``DeviceMemory`` for the terms."""

    uuid: str
    free_bytes: int | None
    device_used_bytes: int | None
    reserved_bytes: int | None
    own_bytes: int | None
    tree_bytes: int | None
    foreign_bytes: int | None
    unattributed_bytes: int | None
    allocator_reserved_bytes: int | None = None
    non_torch_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorDelta(_Terms):
    """Change of a caching allocator's own account of a device. See ``AllocatorMemory``."""

    uuid: str
    reserved_bytes: int | None
    allocated_bytes: int | None
    active_bytes: int | None = None
    requested_bytes: int | None = None
    cached_bytes: int | None = None
    inactive_split_bytes: int | None = None
    unmapped_bytes: int | None = None
    backed_bytes: int | None = None
    segments_count: int | None = None
    retries_count: int | None = None
    ooms_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotDelta:
    """What changed in one process from one snapshot to another; ``str()`` is a table.

    A device that only one of the snapshots has is listed with no known term. The whole of
    ``cgroup`` is None if the process, or the limit that binds it, changed groups meanwhile:
    usages of two groups have no difference.
    """

    pid: int
    elapsed_ns: int
    host: HostDelta
    mappings: MappingsDelta | None
    cgroup: CgroupDelta | None
    system: SystemDelta | None
    devices: tuple[DeviceDelta, ...] | None
    torch: tuple[AllocatorDelta, ...] | None

    def __add__(self, other: SnapshotDelta, /) -> SnapshotDelta:
        if not isinstance(other, SnapshotDelta):
            return NotImplemented
        check_same_process(self.pid, other.pid)
        return SnapshotDelta(
            pid=self.pid,
            elapsed_ns=self.elapsed_ns + other.elapsed_ns,
            host=self.host + other.host,
            mappings=(
                None
                if self.mappings is None or other.mappings is None
                else self.mappings + other.mappings
            ),
            cgroup=_sum_terms(self.cgroup, other.cgroup),
            system=_sum_terms(self.system, other.system),
            devices=joined(self.devices, other.devices, DeviceDelta, DeviceDelta.__add__),
            torch=joined(self.torch, other.torch, AllocatorDelta, AllocatorDelta.__add__),
        )

    def __neg__(self) -> SnapshotDelta:
        return SnapshotDelta(
            pid=self.pid,
            elapsed_ns=-self.elapsed_ns,
            host=-self.host,
            mappings=None if self.mappings is None else -self.mappings,
            cgroup=None if self.cgroup is None else -self.cgroup,
            system=None if self.system is None else -self.system,
            devices=None if self.devices is None else tuple(-device for device in self.devices),
            torch=None if self.torch is None else tuple(-each for each in self.torch),
        )

    def __str__(self) -> str:
        lines = [f"process {self.pid}, change over {self.elapsed_ns / 1e9:.3f} s"]
        for title, terms in self._groups():
            for name, value in terms.changes():
                label = name.removesuffix("_bytes")
                lines.append(f"  {title:<10} {label:<16} {_format_term(name, value):>14}")
        if self.mappings is not None and self.mappings.kinds:
            lines.append(str(self.mappings))
        return "\n".join(lines)

    def _groups(self) -> Iterator[tuple[str, _Terms]]:
        yield "host", self.host
        if self.cgroup is not None:
            yield "cgroup", self.cgroup
        if self.system is not None:
            yield "system", self.system
        for device in self.devices or ():
            yield device.uuid, device
        for allocator in self.torch or ():
            yield f"torch {allocator.uuid}", allocator


def check_same_process(one: int, other: int) -> None:
    """Raises ValueError unless both process ids are the same."""
    if one != other:
        raise ValueError(f"these are of two processes, pid {one} and pid {other}")


def joined(
    ones: Iterable[Any] | None, others: Iterable[Any] | None, terms: type[Any], combine: Any
) -> tuple[Any, ...] | None:
    """Returns ``combine(one, other)`` of the items of the same uuid, in the order of ``ones``.

    Items that only one side has follow with no known term. None if either side is unknown.
    """
    if ones is None or others is None:
        return None
    rest = {item.uuid: item for item in others}
    result = []
    for one in ones:
        other = rest.pop(one.uuid, None)
        result.append(terms.unknown(one) if other is None else combine(one, other))
    return (*result, *(terms.unknown(item) for item in rest.values()))
