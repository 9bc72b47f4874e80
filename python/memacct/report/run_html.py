"""A recording as one page that needs nothing else: no library, no font, no network."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from memacct._printable import printable
from memacct._units import format_bytes
from memacct.report.run_account import called
from memacct.report.run_series import chart_data
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
    from collections.abc import Iterable, Iterator, Sequence

    from memacct.report.run_account import DevicePeak, RunAccount
    from memacct.report.run_spans import Spans
    from memacct.report.startup_types import TreeNode

_PARTS = Path(__file__).with_name("page")
_ROWS = 100
_EVENTS = 200
# The browser itself refuses any request that a mistake here would make.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def run_page(account: RunAccount, spans: Spans) -> str:
    """Returns the page as HTML text."""
    # "<" could end the script early, wherever a process's name has it.
    data = json.dumps(chart_data(account, spans), separators=(",", ":")).replace("<", "\\u003c")
    title = escape(command_text(account.run))
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">',
            f"<title>memacct: {title}</title>",
            f"<style>{(_PARTS / 'run.css').read_text(encoding='utf-8')}</style></head><body>",
            *_body(account, spans),
            f'<script type="application/json" id="data">{data}</script>',
            f"<script>{(_PARTS / 'run.js').read_text(encoding='utf-8')}</script></body></html>\n",
        ]
    )


def _body(account: RunAccount, spans: Spans) -> Iterator[str]:
    run = account.run
    yield f"<header><p class=kicker>memacct record</p><h1>{escape(command_text(run))}</h1>"
    yield f"<p class=about>{escape(ending_text(run))} · {escape(machine_text(run))}</p></header>"
    yield f"<main><section class=tiles>{''.join(_tiles(account))}</section>"
    yield from _charts(account, spans)
    if account.device_peaks:
        yield '<section><h2>Every byte of each GPU at the peak</h2><div class="pair">'
        yield (
            "".join(_equation(account, peak) for peak in account.device_peaks) + "</div></section>"
        )
    yield from _events(account)
    yield from _processes(account)
    yield from _tree(spans)
    yield f"</main><footer>{''.join(f'<p>{escape(text)}</p>' for text in _notes(account, spans))}"
    yield "</footer>"


def _tiles(account: RunAccount) -> Iterator[str]:
    run = account.run
    yield _tile(
        "took",
        duration(seconds(run, run.last_ns)),
        counted(len(run.samples_ns), "sample", "samples"),
    )
    if account.host_peak is not None:
        peak = account.host_peak
        holders = counted(len(peak.holders), "process", "processes")
        note = f"at {seconds(run, peak.at_ns):.2f} s, {holders}"
        yield _tile("host peak", format_bytes(peak.total_bytes), note)
    for each in account.device_peaks:
        number = each.device.number if each.device.index is None else each.device.index
        size = each.point.terms["tree_bytes" if each.of_tree else "device_used_bytes"]
        note = f"of {_size(each.point.terms['total_bytes'])}, at "
        note += f"{seconds(run, each.point.at_ns):.2f} s"
        title = f"GPU {number} peak" + ("" if each.of_tree else " of others")
        yield _tile(title, _size(size), note)
    events = account.events()
    if run.devices:
        moved = sum(abs(event.change_bytes) for _, event in events)
        yield _tile(
            "neighbours", counted(len(events), "move", "moves"), f"{format_bytes(moved)} in all"
        )
    if run.end is not None:
        note = f"{run.end['sampling_cpu_ns'] / 1e9:.2f} s of CPU"
        yield _tile("sampling took", f"{run.end['sampling_cpu_ratio']:.1%}", note)


def _tile(title: str, value: str, note: str) -> str:
    texts = (escape(text) for text in (title, value, note))
    return "<div class=tile><p>{}</p><strong>{}</strong><small>{}</small></div>".format(*texts)


def _charts(account: RunAccount, spans: Spans) -> Iterator[str]:
    run = account.run
    is_pss = run.header["host"] == "rollup"
    what = (
        "pss: a page that several map is divided among them"
        if is_pss
        else "rss: a page that several map counts in each"
    )
    yield f"<section><h2>Host memory</h2><p class=hint>by process; {what}</p>"
    yield "<div class=chart data-chart=host></div></section>"
    for number, device in enumerate(run.devices):
        index = device.number if device.index is None else device.index
        yield f"<section><h2>GPU {index}</h2><p class=hint>{escape(printable(device.name))}; "
        yield "the recorded tree's processes, then neighbours; the line is its total</p>"
        yield f"<div class=chart data-chart=gpu data-number={number}></div></section>"
    yield "<section><h2>Processes" + (" and spans" if spans.spans else "") + " over time</h2>"
    yield "<div class=chart data-chart=lanes></div></section>"


def _equation(account: RunAccount, peak: DevicePeak) -> str:
    total = peak.point.terms["total_bytes"] or 1
    number = peak.device.number if peak.device.index is None else peak.device.index
    rows = [
        (name.replace("_", " "), _size(value), _bar((value or 0) / total, f"e-{name}"))
        for name, value in peak.equation().items()
    ]
    verdict = {None: "not all is known", True: "= the sum, to the byte", False: "≠ the sum"}
    rows.append(("total", _size(peak.point.terms["total_bytes"]), verdict[peak.holds]))
    who = "the tree's peak" if peak.of_tree else "the most that was held"
    caption = f"GPU {number}: {who}, {seconds(account.run, peak.point.at_ns):.2f} s"
    table = _table(("term", "bytes", "of the total"), rows, raw={2})
    return f"<div><p class=hint>{escape(caption)}</p>{table}</div>"


def _bar(share: float, kind: str) -> str:
    return f'<i class="bar {kind}" style="width:{max(0.0, min(1.0, share)) * 100:.1f}%"></i>'


def _events(account: RunAccount) -> Iterator[str]:
    events = account.events()
    if not events:
        return
    yield "<section class=events><h2>What neighbours did</h2>"
    largest = sorted(events, key=lambda pair: -abs(pair[1].change_bytes))[:_EVENTS]
    shown = [pair for pair in events if pair in largest]
    rows = [
        (
            f"{seconds(account.run, event.before_ns):.2f} s",
            str(device.number if device.index is None else device.index),
            event_text(event, format_bytes(abs(event.change_bytes))),
        )
        for device, event in shown
    ]
    yield _table(("until", "GPU", "move"), rows)
    if len(shown) < len(events):
        yield f"<p class=hint>and {len(events) - len(shown)} smaller ones</p>"
    yield "</section>"


def _processes(account: RunAccount) -> Iterator[str]:
    run = account.run
    yield "<section class=processes><h2>Processes by peak</h2>"
    rows = [
        (
            printable(called(row.process)),
            str(row.process.pid),
            _size(row.peak_bytes) + ("" if row.exact else " ≤"),
            "" if row.sampled_at_ns is None else f"{seconds(run, row.sampled_at_ns):.2f} s",
            _signed(row.growth_bytes),
            "" if row.device_peak_bytes is None else format_bytes(row.device_peak_bytes),
            f"{seconds(run, row.process.first_ns):.2f} s",
            "" if row.process.ended_ns is None else f"{seconds(run, row.process.ended_ns):.2f} s",
        )
        for row in account.rows[:_ROWS]
    ]
    head = ("process", "pid", "peak rss", "seen at", "growth", "GPU peak", "began", "ended")
    yield _table(head, rows)
    if len(account.rows) > _ROWS:
        yield f"<p class=hint>and {len(account.rows) - _ROWS} smaller ones</p>"
    yield "</section>"


def _tree(spans: Spans) -> Iterator[str]:
    if spans.tree is None:
        return
    rows = [row for root in spans.tree.roots for row in _nodes(root, 0)]
    yield "<section><h2>The start, step by step</h2><p class=hint>from the processes' timelines; "
    yield "what each step added</p>"
    head = ("step", "at", "took", "rss", "held", "reclaimable", "own GPU")
    yield _table(head, rows, raw={0}) + "</section>"


def _nodes(node: TreeNode, depth: int) -> Iterator[Sequence[str]]:
    is_process = node.kind == "process"
    name = f"{node.name}, process {node.pid}" if is_process else node.name
    text = f'<span class="{node.kind}" style="margin-left:{depth * 1.1:.1f}em">'
    took = "" if node.end_ns is None else f"{(node.end_ns - node.begin_ns) / 1e9:.2f} s"
    yield (
        text + escape(printable(name)) + "</span>",
        f"{node.begin_ns / 1e9:.2f} s",
        "" if node.kind == "checkpoint" else took or "not ended",
        _size(node.end.rss_bytes),
        _signed(node.delta.held_bytes),
        _signed(node.delta.reclaimable_bytes),
        _signed(node.delta.own_device_bytes),
    )
    for child in node.children:
        yield from _nodes(child, depth + 1)


def _notes(account: RunAccount, spans: Spans) -> Iterator[str]:
    run = account.run
    if not run.devices and (reason := run.driver.get("reason")):
        yield f"No GPU: {printable(reason)}."
    if spans.problem is not None:
        yield spans.problem
    for error in run.errors:
        yield f"Not read: {printable(str(error['reason']))}."
    if run.torn_bytes:
        yield f"{run.torn_bytes} bytes at the end were written half, and are left out."
    if cost := cost_text(run):
        yield cost[0].upper() + cost[1:] + "."
    yield "What comes and goes between two samples is not seen; of rss the kernel keeps the peak."


def _table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    raw: set[int] | frozenset[int] = frozenset(),
) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{cell if i in raw else escape(cell)}</td>" for i, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class=wide><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _size(value: int | None) -> str:
    return "?" if value is None else format_bytes(value)


def _signed(value: int | None) -> str:
    return "" if value is None else ("+" if value > 0 else "") + format_bytes(value)
