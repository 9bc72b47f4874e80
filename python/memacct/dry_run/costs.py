"""The costs that kernels which do nothing do not show: what is known of them for a machine."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from memacct._errors import ConfigError
from memacct.cards import find_card
from memacct.sim import Costs as SimulatedCosts

from .calibration_file import Calibration, find_calibration
from .costs_data import Where, amount_for
from .result import Amount

if TYPE_CHECKING:
    from pathlib import Path

    from .request import Machine

# The kernels of an engine are loaded in this many steps, so that nearly all of their growth comes
# while a model is loaded and profiled, as on a GPU, and little before the engine's first reading.
_KERNEL_STEPS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Device memory of one worker outside PyTorch's allocator, each part with its range.

    Attributes:
        context: a CUDA context when it is made; before the engine's first reading.
        kernels: by how much it grows while kernels are loaded, up to the end of the profiling pass.
        cublas: a cuBLAS handle; before the first reading from vLLM 0.33 on.
        nccl: all communicators until the first reading.
        nccl_later: what collectives take in the profiling pass, within the engine's budget.
        graph: an instantiated CUDA graph.
        graph_node: each node of one.
        wsl: what Windows' driver takes besides, within the budget.
        notes: what is assumed, for people.
    """

    context: Amount
    kernels: Amount
    cublas: Amount
    nccl: Amount
    nccl_later: Amount
    graph: Amount
    graph_node: Amount
    wsl: Amount
    notes: tuple[str, ...] = field(default=())

    def terms(self) -> dict[str, Amount]:
        """Each part by its name."""
        return {
            each.name: getattr(self, each.name) for each in fields(self) if each.name != "notes"
        }

    def simulated(self) -> SimulatedCosts:
        """The central values for the simulated GPU; the context is its own setting there."""
        loaded = self.kernels.bytes + self.wsl.bytes
        return SimulatedCosts(
            kernel_bytes=-(-loaded // _KERNEL_STEPS),
            kernels_limit_bytes=loaded,
            cublas_bytes=self.cublas.bytes,
            nccl_bytes=self.nccl.bytes,
            nccl_first_bytes=self.nccl_later.bytes,
            graph_bytes=self.graph.bytes,
            graph_node_bytes=self.graph_node.bytes,
        )


def known_costs(
    machine: Machine,
    *,
    tensor_parallel_size: int,
    nvlink: bool | None = None,
    torch: str | None = None,
    cuda: str | None = None,
    driver: str | None = None,
    wsl: bool = False,
    calibration: Path | None = None,
) -> Costs:
    """What is known of the costs on a machine.

    A measurement of the user's own comes first (`calibration`, else the file of that name in
    XDG_CONFIG_HOME), for the same card, driver and torch; then public readings of the card, of its
    generation, of any card.

    Args:
        machine: the card by its name in the catalogue and the driver's.
        tensor_parallel_size: GPUs of one engine that exchange tensors.
        nvlink: whether they are joined by NVLink; None is not known.
        torch: its version; None takes any measurement.
        cuda: the version that torch is built for.
        driver: its version; None for a recent one.
        wsl: below Windows.
        calibration: a file that ``memacct calibrate`` wrote.

    Raises:
        ConfigError: `calibration` is not there, or is no such file.
    """
    card = find_card(machine.gpu)  # None: it was asked for by its size
    where = Where(
        card=card.name if card else None,
        architecture=card.architecture if card else None,
        driver=_branch(driver),
        nvlink=nvlink,
        wsl=wsl,
    )
    found = _public(where, alone=tensor_parallel_size == 1)
    measured = find_calibration(
        machine.driver_name, driver=driver, torch=torch, cuda=cuda, given=calibration
    )
    return found if measured is None else _measured(found, measured)


def _public(where: Where, *, alone: bool) -> Costs:
    nothing = Amount(bytes=0, low_bytes=0, high_bytes=0, source="one GPU: no communicator")
    notes = []
    if where.card is None:
        notes.append("the card is not known: its costs are those of any card")
    if not alone and where.nvlink is None:
        notes.append("whether the GPUs are joined by NVLink is not known")
    return Costs(
        context=amount_for("context", where),
        kernels=amount_for("kernels", where),
        cublas=_within("in the figure of the kernels, which logs do not tell apart"),
        nccl=nothing if alone else amount_for("nccl", where),
        nccl_later=nothing if alone else amount_for("nccl_later", where),
        graph=_within("in the figure of its nodes"),
        graph_node=amount_for("graph_node", where),
        wsl=amount_for("wsl", where),
        notes=tuple(notes),
    )


def _within(why: str) -> Amount:
    return Amount(bytes=0, low_bytes=0, high_bytes=0, source=why)


def _measured(public: Costs, measured: Calibration) -> Costs:
    """The user's own figures instead of the public ones, where there are any."""
    unknown = set(measured.figures) - set(public.terms())
    if unknown:
        raise ConfigError(f"the calibration of {measured.card} has unknown figures: {unknown}")
    terms = {**public.terms(), **measured.figures}
    if "kernels" in measured.figures:
        # A measured start has all that Windows takes in its kernels.
        terms["wsl"] = _within("measured with the kernels")
    return Costs(**terms, notes=(*measured.notes, *(n for n in public.notes if "NVLink" in n)))


def _branch(driver: str | None) -> int | None:
    """580 of "580.65.06"."""
    first = (driver or "").split(".")[0]
    return int(first) if first.isdigit() else None
