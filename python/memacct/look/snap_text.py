"""A look at the machine or at one process, as the tables of ``memacct snap``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._printable import printable
from memacct._units import GIB, MIB, format_bytes
from memacct.look.parts import SORTS, called, gib, gpu_terms, room
from memacct.look.styled import Span, fit, line, wrap
from memacct.look.tables import Column, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memacct._core import HostMemory, ProcessMemory
    from memacct.look.look_types import Gpu, Holder, Look
    from memacct.look.styled import Line

# Of each tier, in the order in which they add up: rss = anon + file + shmem; pss, uss: exact.
_TERMS = {
    "counters": ("rss", "shared", "vms"),
    "breakdown": ("rss", "anon", "file", "shmem", "held", "reclaimable", "swap", "peak"),
    "rollup": ("rss", "pss", "uss", "held", "reclaimable", "swap", "peak"),
}
_FIELDS = {
    "anon": "rss_anon_bytes",
    "file": "rss_file_bytes",
    "shmem": "rss_shmem_bytes",
    "peak": "peak_rss_bytes",
}
_LEAST_NAME = 8  # columns, below which a GPU's name tells nothing
_LARGE = 10 * GIB  # from here on a table is in GiB


def snap_lines(look: Look, columns: int) -> list[Line]:
    """Returns the tables, none wider than so many columns."""
    lines: list[Line] = []
    if look.process is not None:
        lines += [fit(_who(look.process), columns), ()]
    lines += _gpu_lines(look, columns)
    if look.process is not None:
        lines += [(), *_process_lines(look, columns)]
    if look.mappings is not None:
        lines += [(), *(fit(line(text), columns) for text in str(look.mappings).splitlines())]
    return [*lines, (), *_room_lines(look, columns)]


def _who(process: ProcessMemory) -> Line:
    title = printable(process.title or f"[{process.name}]")
    role = called(process)
    return line(
        Span(f"pid {process.pid}", "title"), "  ", *([role, "  "] if process.rank else []), title
    )


# ---------------------------------------------------------------- GPUs


def _gpu_lines(look: Look, columns: int) -> Iterator[Line]:
    if look.gpus is None:
        if look.gpus_reason:
            yield fit(line(Span("no GPU: ", "dim"), look.gpus_reason), columns)
        return
    if not look.gpus:
        whose = "no GPU" if look.pid is None else f"pid {look.pid} is on no GPU"
        yield fit(line(whose, Span("  (--devices all: every GPU)", "dim")), columns)
        return
    yield from _equation(look.gpus, columns, picked=look.pid is not None)
    yield from _notes(look, columns)
    rows = [(gpu.label, holder) for gpu in look.gpus for holder in gpu.processes]
    if rows:
        yield ()
        yield from _holders(rows, columns, picked=look.pid is not None)


def _equation(gpus: Sequence[Gpu], columns: int, *, picked: bool) -> list[Line]:
    names = [name for name, _ in gpu_terms(gpus[0], picked=picked)]
    heads = [Column("GPU", right=False), Column("GiB", right=False, stretch=True), Column("total")]
    # The terms as the equation has them: total = free + …
    heads += [Column(f"{'+' if i else '='} {name}") for i, name in enumerate(names)]
    named = columns >= sum(len(head.title) + 2 for head in heads) + _LEAST_NAME
    rows = [
        [gpu.label, gpu.name if named else "", gib(gpu.total_bytes)]
        + [gib(dict(gpu_terms(gpu, picked=picked)).get(name)) for name in names]
        for gpu in gpus
    ]
    return table(heads, rows, columns)


def _notes(look: Look, columns: int) -> Iterator[Line]:
    for note in look.gpus_notes:
        yield from (line(Span(part, "warn")) for part in wrap(note, columns))
    for gpu in look.gpus or ():
        for note in gpu.notes:
            yield fit(line(Span(f"GPU {gpu.label}: {note}", "warn")), columns)
    if look.pid is None:
        if look.numbers == "perhaps" and any(gpu.processes for gpu in look.gpus or ()):
            yield line(Span("names: by number, in a container: perhaps of others", "warn"))
        return
    found = [(gpu.label, gpu.attribution) for gpu in look.gpus or () if gpu.attribution]
    if found and all(finding.sure for _, finding in found):
        yield fit(line(Span("own: by pid in the driver's list, sure", "dim")), columns)
        return
    for label, finding in found:
        low, high = map(gib, finding.own_bounds_bytes)
        text = f"GPU {label} own: {low} to {high} GiB, not sure: {finding.reason}"
        yield from (line(Span(part, "warn")) for part in wrap(text, columns))


def _holders(rows: list[tuple[str, Holder]], columns: int, *, picked: bool) -> list[Line]:
    rows.sort(key=SORTS["gpu"])
    rows.sort(key=lambda row: row[0])
    heads = [Column("GPU", right=False), Column("pid"), Column("GiB")]
    heads += [Column("whose", right=False)] if picked else []
    heads += [Column("host rss"), Column("process", right=False, stretch=True)]
    cells = [
        [label, str(holder.pid), gib(holder.process_used_bytes)]
        + ([Span(holder.owner, "good" if holder.owner == "own" else "")] if picked else [])
        + ["?" if holder.host is None else format_bytes(holder.host.rss_bytes), called(holder)]
        for label, holder in rows
    ]
    return table(heads, cells, columns)


# ---------------------------------------------------------------- host


def _process_lines(look: Look, columns: int) -> list[Line]:
    processes = look.tree.processes if look.tree is not None else (look.process,)
    found = [each for each in processes if each is not None]
    tier = next((each.host.tier for each in found if each.host is not None), "counters")
    terms = _TERMS.get(tier, _TERMS["breakdown"])
    largest = max((each.host.rss_bytes for each in found if each.host is not None), default=0)
    unit, name = (GIB, "GiB") if largest >= _LARGE else (MIB, "MiB")
    heads = [Column(f"host {name}", right=False), *map(Column, terms)]
    rows = [[f"pid {each.pid}", *_host_cells(each, terms, unit)] for each in found]
    if look.tree is not None:
        heads.append(Column("process", right=False, stretch=True))
        for row, each in zip(rows, found, strict=True):
            row.append("  " * each.depth + called(each))
        sums = [_cell(getattr(look.tree, f"{term}_bytes", None), unit, "") for term in terms]
        note = "" if look.tree.complete else "lower bounds: not all could be read"
        rows.append(["sum", *sums, note])
    return table(heads, rows, columns)


def _host_cells(process: ProcessMemory, terms: Sequence[str], unit: int) -> list[str]:
    if process.host is None:
        return [process.state, *[""] * (len(terms) - 1)]
    return [_cell(_term(process.host, term), unit, "?") for term in terms]


def _term(host: HostMemory, name: str) -> int | None:
    value: int | None = getattr(host, _FIELDS.get(name, f"{name}_bytes"))
    return value


def _cell(value: int | None, unit: int, unknown: str) -> str:
    return unknown if value is None else f"{value / unit:.2f}"


def _room_lines(look: Look, columns: int) -> Iterator[Line]:
    binding = room(look)
    heads = [Column("GiB", right=False, stretch=True)]
    heads += [Column(name) for name in ("limit", "held", "reclaimable", "free", "swap")]
    yield from table(heads, list(_limit_rows(look)), columns)
    if look.limits is not None and look.limits.headroom_bytes is not None and binding is not None:
        whose = "what this shell starts" if look.pid is None else "that process"
        most = "" if look.limits.headroom_known else "at most "
        yield fit(
            line(
                Span(f"{most}{gib(look.limits.headroom_bytes)} GiB of room", "bold"),
                f" for {whose}; what binds is the {binding.name}",
            ),
            columns,
        )
    pressure = None if look.system is None else look.system.pressure
    if pressure is not None and pressure.some_avg10_ratio > 0:
        share = 100 * pressure.some_avg10_ratio
        yield line(Span(f"memory pressure: some task waited {share:.1f} % of 10 s", "warn"))


def _limit_rows(look: Look) -> Iterator[list[str]]:
    system = look.system
    if system is not None:
        available, free = system.available_bytes, system.free_bytes
        held = None if available is None else system.total_bytes - available
        swap = None
        if system.swap_total_bytes is not None and system.swap_free_bytes is not None:
            swap = system.swap_total_bytes - system.swap_free_bytes
        cache = None if available is None else max(available - free, 0)
        yield ["machine", *map(gib, (system.total_bytes, held, cache, free, swap))]
    for level in look.cgroup.levels if look.cgroup is not None else ():
        limits = (level.limit_bytes, level.high_bytes, level.memsw_limit_bytes)
        limit = min((each for each in limits if each is not None), default=None)
        if limit is None:
            continue
        held, usage = level.uncached_usage_bytes, level.usage_bytes
        cache = None if held is None or usage is None else usage - held
        left = None if usage is None else max(limit - usage, 0)
        values = (limit, held, cache, left, level.swap_usage_bytes)
        yield [f"cgroup {printable(level.path)}", *map(gib, values)]
