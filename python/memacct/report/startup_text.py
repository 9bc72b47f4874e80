"""The tree of an engine's start as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._printable import printable
from memacct._units import MIB, format_bytes
from memacct.report.text import render_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.report.startup_types import ProcessAccount, StartTree, TreeNode

_HEADER = (
    "MiB",
    "at",
    "took",
    "rss",
    "change",
    "held",
    "of all",
    "reclaimable",
    "own device",
    "change",
    "of all",
    "",
)
_PARTS_SHOWN = 4


def render_tree(tree: StartTree) -> str:
    """Returns the table: one row a step, with its process's below the one that started it.

    ``rss`` and ``own device`` are at the step's end, the others are what changed in it.
    """
    rows = [row for root in tree.roots for row in _rows(root, 0)]
    lines = [render_table(_HEADER, rows)] if rows else ["no timeline"]
    lines += [line for process in tree.processes for line in _process_lines(process)]
    if tree.torn_count:
        lines.append(f"{tree.torn_count} lines were written half, and are left out")
    return "\n".join(lines)


def _rows(node: TreeNode, depth: int) -> Iterator[tuple[str, ...]]:
    yield _row(node, depth)
    for child in node.children:
        yield from _rows(child, depth + 1)


def _row(node: TreeNode, depth: int) -> tuple[str, ...]:
    name = "  " * depth + printable(node.name)
    if node.kind == "process":
        name = "  " * depth + f"[{printable(node.name)}, process {node.pid}]"
    return (
        name,
        f"{node.begin_ns / 1e9:.2f} s",
        "" if node.kind == "checkpoint" else _took(node),
        _mib(node.end.rss_bytes),
        _signed(node.delta.rss_bytes),
        _signed(node.delta.held_bytes),
        _percent(node.held_ratio),
        _signed(node.delta.reclaimable_bytes),
        "" if node.end.own_device_bytes is None else _mib(node.end.own_device_bytes),
        "" if node.end.own_device_bytes is None else _signed(node.delta.own_device_bytes),
        "" if node.end.own_device_bytes is None else _percent(node.own_device_ratio),
        _remarks(node),
    )


def _took(node: TreeNode) -> str:
    return "no end" if node.end_ns is None else f"{(node.end_ns - node.begin_ns) / 1e9:.2f} s"


def _remarks(node: TreeNode) -> str:
    said = [] if node.error is None else [printable(node.error)]
    for name, value in node.notes.items():
        if name.endswith("_bytes") and isinstance(value, int):
            said.append(f"{name.removesuffix('_bytes')} {format_bytes(value)}")
        elif name.endswith("_ns") and isinstance(value, int):
            said.append(f"{name.removesuffix('_ns')} {value / 1e6:.1f} ms")
        elif name.endswith("_count"):
            said.append(f"{value} {name.removesuffix('_count')}")
        else:
            said.append(f"{name} {value}")
    return printable(", ".join(said))


def _process_lines(process: ProcessAccount) -> Iterator[str]:
    yield f"{printable(process.name)} (process {process.pid}): {_verdict(process)}"
    if process.parts:
        parts = sorted(process.parts.items(), key=lambda item: -item[1])
        said = ", ".join(f"{kind} {_mib(size_bytes)}" for kind, size_bytes in parts[:_PARTS_SHOWN])
        yield f"  baseline {_mib(process.baseline.rss_bytes)} MiB: {said}"
    if process.own_wall_ns is not None and process.own_cpu_ns is not None:
        yield (
            f"  memacct itself took {process.own_wall_ns / 1e6:.0f} ms, "
            f"{process.own_cpu_ns / 1e6:.0f} ms of CPU"
        )


def _verdict(process: ProcessAccount) -> str:
    said = []
    if process.failed_in is not None:
        said.append(
            f"failed with {printable(process.error or '?')} in {printable(process.failed_in)}"
        )
    elif process.state != "started":
        where = " > ".join(printable(name) for name in process.open_spans) or "after its last step"
        word = "was killed or failed" if process.state == "ended" else "did not get further"
        said.append(f"{word} in {where}" if process.open_spans else f"{word} {where}")
    said.append(process.check or "the sum was not checked")
    if process.lost_count:
        said.append(f"{process.lost_count} entries are lost")
    return "; ".join(said)


def _mib(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else f"{size_bytes / MIB:,.1f}"


def _signed(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "?"
    return f"{size_bytes / MIB:+,.1f}" if size_bytes else "0"


def _percent(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1%}"
