"""The upper part of a frame: a bar a GPU, and one of the host, each with its sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._printable import printable
from memacct._units import format_bytes
from memacct.look.bar import bar
from memacct.look.parts import called, gib, gpu_parts, gpu_terms, room, room_parts
from memacct.look.styled import Span, beside, fit, line, pad

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.look.frame_data import Frame
    from memacct.look.look_types import Gpu, Look
    from memacct.look.styled import Line


def no_gpus(look: Look, columns: int) -> list[Line]:
    """Returns why there is no GPU, or not all of them; nothing if there is nothing to tell."""
    if look.gpus:
        return [fit(line(Span(note, "warn")), columns) for note in look.gpus_notes]
    why = look.gpus_reason or ("no GPU is here" if look.gpus is not None else "GPUs: not asked for")
    return [fit(line(Span(f"no GPU: {why}" if look.gpus_reason else why, "warn")), columns)]


def gpus_lines(frame: Frame, columns: int, each: int, rows: int, colour: bool) -> list[Line]:
    """Returns the GPUs, each in so many rows, as many as there is room for."""
    gpus = frame.look.gpus or ()
    shown = gpus if len(gpus) * each <= rows else gpus[: max(rows - 1, 1)]
    lines = [text for gpu in shown for text in gpu_lines(frame, gpu, columns, each, colour)]
    if len(shown) < len(gpus):
        lines.append(line(Span(f"and {len(gpus) - len(shown)} GPUs more", "dim")))
    return lines


def gpu_lines(frame: Frame, gpu: Gpu, columns: int, rows: int, colour: bool) -> Iterator[Line]:
    """Returns one GPU: its bar, with two rows its sums above, with three a note below."""
    parts = gpu_parts(gpu, frame.keys)
    if rows == 1:
        label = pad(gpu.label, 3)
        yield (Span(label, "bold"), *bar(parts, columns - 3, colour=colour))
        return
    left = line(Span(f"GPU {gpu.label}", "bold"), f"  {gpu.name}")
    yield beside(left, _sums(gpu, picked=frame.look.pid is not None), columns)
    yield bar(parts, columns, colour=colour)
    if rows > 2:  # noqa: PLR2004 (title, bar)
        yield fit(line(Span(gpu.notes[0], "warn")), columns) if gpu.notes else ()


def _sums(gpu: Gpu, *, picked: bool) -> list[Line]:
    """The equation of a device, as long and as short as it can be told."""
    terms = gpu_terms(gpu, picked=picked)
    whole = f"{gib(gpu.total_bytes)} GiB"
    full = " + ".join(f"{gib(value)} {name}" for name, value in terms)
    named = dict(terms)
    names = ("own", "tree", "foreign") if picked else ("processes",)
    short = "  ".join(f"{name} {gib(named[name])}" for name in names)
    return [
        line(full, Span(f" = {whole}", "bold")),
        line(f"{short}  free {gib(gpu.free_bytes)}", Span(f"  of {whole}", "bold")),
        line(f"{gib(gpu.free_bytes)} free", Span(f" of {whole}", "bold")),
        line(f"{gib(gpu.free_bytes)} free"),
    ]


def host_lines(frame: Frame, columns: int, rows: int, *, colour: bool) -> list[Line]:
    """Returns what binds on the host; with two rows the process that is picked, too."""
    found = room(frame.look)
    if found is None:
        return []
    parts = room_parts(found)
    if rows == 1:
        return [(Span("mem", "bold"), *bar(parts, columns - 3, colour=colour))]
    rights = [
        line(
            f"{gib(found.held_bytes)} held + {gib(found.reclaimable_bytes)} reclaimable + "
            f"{gib(found.free_bytes)} free",
            Span(f" = {gib(found.limit_bytes)} GiB", "bold"),
        ),
        line(f"held {gib(found.held_bytes)} of {gib(found.limit_bytes)} GiB"),
    ]
    left = line(Span("host", "bold"), f"  {printable(found.name)}")
    return [
        beside(left, rights, columns),
        bar(parts, columns, colour=colour),
        *_picked(frame, columns),
    ]


def _picked(frame: Frame, columns: int) -> Iterator[Line]:
    process = frame.look.process
    if process is None:
        return
    host = process.host
    if host is None:
        yield fit(line(f"pid {process.pid}: {process.state}"), columns)
        return
    terms = [("rss", host.rss_bytes), ("held", host.held_bytes)]
    terms += [("reclaimable", host.reclaimable_bytes), ("swap", host.swap_bytes)]
    terms += [("peak", host.peak_rss_bytes)]
    told = "  ".join(f"{name} {format_bytes(v)}" for name, v in terms if v is not None)
    yield fit(line(Span(f"pid {process.pid}", "good"), f"  {told}  {called(process)}"), columns)
