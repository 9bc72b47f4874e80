"""From marks to figures: differences, a line through graphs of known sizes, and the spread."""

from __future__ import annotations

import itertools
import statistics
from fractions import Fraction
from typing import TYPE_CHECKING

from memacct.dry_run.result import Amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct.calibration.standing import Mark

# Models differ by this much in what their kernels take (0.13 to 0.14 GiB on one card, a mixture of
# experts of 120B beside 0.6B: llm-d's list, dry_run/costs.json).
_MODELS_RATIO = Fraction(1, 10)


def torch_figures(runs: Sequence[Sequence[Mark]], graphs_count: int) -> dict[str, Amount]:
    """A context, a cuBLAS handle, a graph and each of its nodes.

    Args:
        runs: the marks of ``memacct_torch_costs.py``, one sequence a run.
        graphs_count: how many graphs it made of each number of nodes.
    """
    contexts, handles, graphs, nodes = [], [], [], []
    for marks in runs:
        held = [mark.held_bytes for mark in marks]
        contexts.append(held[0])
        handles.append(held[1] - held[0])
        sizes = [int(mark.name.split()[1]) for mark in marks[3:]]
        grown = [
            Fraction(after - before, graphs_count) for before, after in itertools.pairwise(held[2:])
        ]
        fixed, per_node = line_through(sizes, grown)
        graphs.append(round(fixed))
        nodes.append(round(per_node))
    return {
        "context": spread(contexts, "when PyTorch has made it"),
        "cublas": spread(handles, "PyTorch's handle, without its workspace"),
        "graph": spread(graphs, "graphs of known sizes: what they take without nodes"),
        "graph_node": spread(nodes, "graphs of known sizes: what each kernel more takes"),
    }


def nccl_figures(ranks: Sequence[Sequence[Mark]]) -> dict[str, Amount]:
    """A communicator of NCCL, and its first collectives; the spread is that of the ranks."""
    made = [marks[1].held_bytes - marks[0].held_bytes for marks in ranks]
    connected = [marks[2].held_bytes - marks[1].held_bytes for marks in ranks]
    return {
        "nccl": spread(made, f"a communicator of {len(ranks)} GPUs when it is made"),
        "nccl_first": spread(connected, "its first collectives, of 64 MiB"),
    }


def engine_figures(marks: Sequence[Mark]) -> dict[str, Amount]:
    """What an engine's start takes outside PyTorch from its first reading to its last.

    Args:
        marks: of ``memacct_engine_costs.py``.
    """
    initialised, profiled = (mark.held_bytes for mark in marks[-2:])
    loaded = max(profiled - initialised, 0)
    margin = int(loaded * _MODELS_RATIO)
    kernels = Amount(
        bytes=loaded,
        low_bytes=loaded - margin,
        high_bytes=loaded + margin,
        source="one start of a small engine; models differ by a tenth",
    )
    return {"kernels": kernels}


def line_through(sizes: Sequence[int], values: Sequence[Fraction]) -> tuple[Fraction, Fraction]:
    """The least squares' line: its value at 0 (at least 0) and its slope (likewise)."""
    count, mean_size = len(sizes), Fraction(sum(sizes), len(sizes))
    mean_value = sum(values, Fraction(0)) / count
    over = sum(
        ((size - mean_size) * value for size, value in zip(sizes, values, strict=True)), Fraction(0)
    )
    under = sum(((size - mean_size) ** 2 for size in sizes), Fraction(0))
    slope = max(over / under, Fraction(0))
    return max(mean_value - slope * mean_size, Fraction(0)), slope


def spread(values: Sequence[int], how: str) -> Amount:
    """The median of several readings, the least and the most; never below 0."""
    kept = [max(value, 0) for value in values]
    return Amount(
        bytes=int(statistics.median(kept)),
        low_bytes=min(kept),
        high_bytes=max(kept),
        source=f"measured {len(kept)} time{'' if len(kept) == 1 else 's'}: {how}",
    )
