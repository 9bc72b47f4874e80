"""A recording's report in a terminal: what ``memacct report FILE`` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from memacct._printable import printable
from memacct._units import format_bytes
from memacct.report.run_account import called
from memacct.report.run_words import (
    command_text,
    cost_text,
    counted,
    duration,
    ending_text,
    event_text,
    machine_text,
    seconds,
)

if TYPE_CHECKING:
    from memacct.recording import ListedProcess
    from memacct.report.run_account import DevicePeak, RunAccount
    from memacct.report.run_spans import Spans
    from memacct.report.startup_types import TreeNode

_ROWS = 8
_GROWERS = 5
_EVENTS = 8
_LISTED = 4
_TEXTS = ("process", "what neighbours did", "", "at that time", "start-up, from timelines")
_BAR_CELLS = 24
_LEAST_GROWTH_BYTES = 1 << 20
_LEVELS = " ▁▂▃▄▅▆▇█"
_FILE_WIDTH = 80


def print_run(account: RunAccount, spans: Spans) -> None:
    """Prints the summary: as wide as the terminal, and 80 columns where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_FILE_WIDTH)
    console.print(Group(*_parts(account, spans)))


def _parts(account: RunAccount, spans: Spans) -> list[Any]:
    run = account.run
    parts: list[Any] = [
        Text(command_text(run), style="bold"),
        Text(f"{machine_text(run)}", style="dim"),
        Text(
            f"{duration(seconds(run, run.last_ns))}, "
            f"{counted(len(run.samples_ns), 'sample', 'samples')}, "
            f"{counted(len(run.processes), 'process', 'processes')}; {ending_text(run)}"
        ),
        *_host(account),
        *(part for peak in account.device_peaks for part in _device(account, peak)),
        *_events(account),
        *_spans(spans),
    ]
    parts += [Text(f"not read: {printable(str(e['reason']))}", style="dim") for e in run.errors]
    if run.torn_bytes:
        parts.append(Text(f"{run.torn_bytes} bytes at the end were written half: left out"))
    if not run.devices and (reason := run.driver.get("reason")):
        parts.append(Text(f"no GPU: {printable(reason)}", style="dim"))
    if cost := cost_text(run):
        parts.append(Text(cost, style="dim"))
    return parts


def _host(account: RunAccount) -> list[Any]:
    peak = account.host_peak
    if peak is None:
        return [Text("no sample has any process: it ended too soon")]
    run = account.run
    counted = "pss" if run.header["host"] == "rollup" else "rss"
    title = Text.assemble(
        ("\nhost  ", "bold"),
        (_spark(account.host_totals), "cyan"),
        f"  peak {format_bytes(peak.total_bytes)} ({counted}, all processes) "
        f"at {seconds(run, peak.at_ns):.2f} s",
    )
    at_peak = {process.number: size for process, size in peak.holders}
    table = _table("pid", "process", "peak rss", "seen at", f"{counted} at the peak", "GPU peak")
    for row in account.rows[:_ROWS]:
        held = at_peak.get(row.process.number)
        when = row.sampled_at_ns
        table.add_row(
            str(row.process.pid),
            escape(printable(called(row.process))),
            _size(row.peak_bytes),
            "" if when is None else f"{seconds(run, when):.2f} s",
            "" if held is None else format_bytes(held),
            "" if row.device_peak_bytes is None else format_bytes(row.device_peak_bytes),
        )
    parts: list[Any] = [title, table]
    if len(account.rows) > _ROWS:
        parts.append(Text(f"  and {len(account.rows) - _ROWS} smaller ones", style="dim"))
    grew = [r for r in account.growers(_GROWERS) if (r.growth_bytes or 0) >= _LEAST_GROWTH_BYTES]
    if grew:
        words = [
            f"{printable(called(r.process))} {r.process.pid} +{_size(r.growth_bytes)}" for r in grew
        ]
        parts.append(Text.assemble(("grew most  ", "bold"), ", ".join(words)))
    return parts


def _device(account: RunAccount, peak: DevicePeak) -> list[Any]:
    run, terms = account.run, peak.point.terms
    device = peak.device
    who = "the tree's peak" if peak.of_tree else "the most that was held"
    number = device.number if device.index is None else device.index
    head = Text.assemble(
        (f"\nGPU {number}  ", "bold"),
        f"{printable(device.name)}, {_size(terms['total_bytes'])}: {who}, "
        f"{seconds(run, peak.point.at_ns):.2f} s",
    )
    table = _table("at that time", "", "")
    total = terms["total_bytes"] or 1
    for name, value in peak.equation().items():
        cells = 0 if value is None else round(_BAR_CELLS * max(0, value) / total)
        table.add_row(name.replace("_", " "), _size(value), "█" * cells)
        for each in _listed(peak, name):
            named = run.names.get(each.pid, "")
            if each.number is not None:
                named = called(run.processes[each.number])
            table.add_row(
                escape(f"  {each.pid} {printable(named)}"), _size(each.process_used_bytes), ""
            )
    verdict = {None: "not all is known", True: "the sum, to the byte", False: "not the sum"}
    table.add_row("total", _size(terms["total_bytes"]), verdict[peak.holds])
    return [head, table]


def _listed(peak: DevicePeak, owner: str) -> list[ListedProcess]:
    """The largest of one owner's processes at the peak."""
    of_owner = [each for each in peak.point.processes if each.owner == owner]
    return sorted(of_owner, key=lambda each: -(each.process_used_bytes or 0))[:_LISTED]


def _events(account: RunAccount) -> list[Any]:
    events = account.events()
    if not events:
        return []
    table = _table("at", "GPU", "what neighbours did")
    largest = sorted(events, key=lambda pair: -abs(pair[1].change_bytes))[:_EVENTS]
    for device, event in [pair for pair in events if pair in largest]:
        number = device.number if device.index is None else device.index
        when = f"{seconds(account.run, event.before_ns):.2f} s"
        text = event_text(event, format_bytes(abs(event.change_bytes)))
        table.add_row(when, str(number), escape(text))
    rest = len(events) - len(largest)
    return [Text(), table, *([Text(f"  and {rest} smaller moves", style="dim")] if rest else [])]


def _spans(spans: Spans) -> list[Any]:
    if spans.problem is not None:
        return [Text(spans.problem, style="dim")]
    if spans.tree is None:
        return []
    table = _table("start-up, from timelines", "at", "took", "held", "own GPU")
    for root in spans.tree.roots:
        _add_node(table, root, 0)
    return [Text(), table]


def _add_node(table: Table, node: TreeNode, depth: int) -> None:
    name = f"[{node.name}, process {node.pid}]" if node.kind == "process" else node.name
    took = "" if node.end_ns is None else duration((node.end_ns - node.begin_ns) / 1e9)
    table.add_row(
        "  " * depth + escape(printable(name)),
        f"{node.begin_ns / 1e9:.2f} s",
        took if node.kind != "checkpoint" else "",
        _change(node.delta.held_bytes),
        _change(node.delta.own_device_bytes),
    )
    for child in node.children:
        _add_node(table, child, depth + 1)


def _change(value: int | None) -> str:
    return "" if value is None else ("+" if value > 0 else "") + format_bytes(value)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False)
    for name in columns:
        is_text = name in _TEXTS
        table.add_column(name, justify="left" if is_text else "right", overflow="fold")
    return table


def _size(value: int | None) -> str:
    return "?" if value is None else format_bytes(value)


def _spark(values: tuple[int, ...]) -> str:
    """Returns the course of values in few cells: each the largest of its part."""
    if not values:
        return ""
    cells = min(_BAR_CELLS, len(values))
    most = max(values) or 1
    parts = [
        values[i * len(values) // cells : (i + 1) * len(values) // cells] for i in range(cells)
    ]
    return "".join(_LEVELS[round(max(part) / most * (len(_LEVELS) - 1))] for part in parts)
