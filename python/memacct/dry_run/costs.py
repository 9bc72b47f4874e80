"""The costs that kernels which do nothing do not show: what is known of them for a machine."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from memacct._errors import ConfigError
from memacct.cards import filled_card, find_card
from memacct.sim import Costs as SimulatedCosts

from .calibration_file import Calibration, find_calibration
from .costs_data import Where, amount_for
from .result import Amount

if TYPE_CHECKING:
    from pathlib import Path

    from .request import Machine

_NOT_KNOWN_JOINED = "whether the GPUs are joined by NVLink is not known"
_NO_REDUCTION = "no GPUs share a layer: nothing is reduced"

# The kernels of an engine are loaded in this many steps, so that all of their growth comes while a
# model is loaded and profiled, and not within a few large ones.
_KERNEL_STEPS = 32
# Kernels that a dry run's vLLM 0.33 launches before its first reading: their steps come on top,
# since a figure of kernels is what comes after it.
_EARLY_KERNELS = 3
# PCIe cards of data centres, which may have bridges of NVLink or not.
_MAYBE_JOINED = {"h100-pcie", "h100-nvl", "a100-80-pcie", "a40", "a6000"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Device memory of one worker outside PyTorch's allocator, each part with its range.

    Attributes:
        context: a CUDA context when it is made; before the engine's first reading.
        kernels: by how much it grows while kernels are loaded, from the engine's first reading to
            the end of its profiling pass.
        cublas: a cuBLAS handle; before the first reading from vLLM 0.33 on.
        nccl: a communicator of NCCL when it is made; vLLM's are all made before the first reading.
        nccl_first: its first collective, which connects it; likewise.
        collectives: what several GPUs take in the profiling pass, within the budget: workspaces
            of FlashInfer's all-reduce, NCCL's buffers for large messages.
        graph: an instantiated CUDA graph.
        graph_node: each node of one.
        wsl: what Windows takes besides, before the first reading.
        wsl_later: likewise within the budget.
        notes: what is assumed, for people.
    """

    context: Amount
    kernels: Amount
    cublas: Amount
    nccl: Amount
    nccl_first: Amount
    collectives: Amount
    graph: Amount
    graph_node: Amount
    wsl: Amount
    wsl_later: Amount
    notes: tuple[str, ...] = field(default=())

    def terms(self) -> dict[str, Amount]:
        """Each part by its name."""
        return {
            each.name: getattr(self, each.name) for each in fields(self) if each.name != "notes"
        }

    @property
    def simulated_context_bytes(self) -> int:
        """What a context is set to take on the simulated GPU: what Windows takes comes as early."""
        return self.context.bytes + self.wsl.bytes

    def simulated(self) -> SimulatedCosts:
        """The central values for the simulated GPU; the context is its own setting there."""
        loaded = self.kernels.bytes + self.collectives.bytes + self.wsl_later.bytes
        step = -(-loaded // _KERNEL_STEPS)
        return SimulatedCosts(
            kernel_bytes=step,
            kernels_limit_bytes=loaded + _EARLY_KERNELS * step,
            cublas_bytes=self.cublas.bytes,
            nccl_bytes=self.nccl.bytes,
            nccl_first_bytes=self.nccl_first.bytes,
            graph_bytes=self.graph.bytes,
            graph_node_bytes=self.graph_node.bytes,
        )


def known_costs(
    machine: Machine,
    *,
    tensor_parallel_size: int,
    gpus_count: int | None = None,
    nvlink: bool | None = None,
    vllm: str | None = None,
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
        tensor_parallel_size: GPUs that share each layer, and reduce what comes of it together.
        gpus_count: that talk to each other at all; stages of a pipeline and replicas reduce
            nothing together. None: those that share layers.
        nvlink: whether they are joined by NVLink; None: as cards of this name mostly are.
        vllm: its version; None for a recent one.
        torch: its version; None takes any measurement.
        cuda: the version that torch is built for.
        driver: its version; None for a recent one.
        wsl: below Windows.
        calibration: a file that ``memacct calibrate`` wrote.

    Raises:
        ConfigError: `calibration` is not there, or is no such file.
    """
    card = find_card(machine.gpu)  # None: it was asked for by its size
    reduces = tensor_parallel_size > 1
    talks = reduces or (gpus_count or 1) > 1
    where = Where(
        card=card.name if card else None,
        architecture=card.architecture if card else None,
        driver=_branch(driver),
        vllm=_minor(vllm),
        nvlink=_usually_joined(card.name) if nvlink is None and card else nvlink,
        wsl=wsl,
        stages=talks and not reduces,
    )
    found = _public(where, talks=talks, reduces=reduces)
    measured = find_calibration(
        machine.driver_name, driver=driver, torch=torch, cuda=cuda, given=calibration
    )
    return found if measured is None else _measured(found, measured, talks=talks)


def _public(where: Where, *, talks: bool, reduces: bool) -> Costs:
    alone = _within("one GPU: no communicator")
    notes = []
    if where.card is None:
        notes.append("the card is not known: its costs are those of any card")
    if talks and where.nvlink is None:
        notes.append(_NOT_KNOWN_JOINED)
    return Costs(
        context=amount_for("context", where),
        kernels=amount_for("kernels", where),
        cublas=_within("in the figure of the kernels, which logs do not tell apart"),
        nccl=_within("in the figure of its first collective") if talks else alone,
        nccl_first=amount_for("nccl_first", where) if talks else alone,
        collectives=amount_for("collectives", where) if reduces else _within(_NO_REDUCTION),
        graph=_within("in the figure of its nodes"),
        graph_node=amount_for("graph_node", where),
        wsl=amount_for("wsl", where),
        wsl_later=amount_for("wsl_later", where),
        notes=tuple(notes),
    )


def _within(why: str) -> Amount:
    return Amount(bytes=0, low_bytes=0, high_bytes=0, source=why)


def _measured(public: Costs, measured: Calibration, *, talks: bool) -> Costs:
    """The user's own figures instead of the public ones, where there are any."""
    unknown = set(measured.figures) - set(public.terms())
    if unknown:
        raise ConfigError(f"the calibration of {measured.card} has unknown figures: {unknown}")
    terms = {**public.terms(), **measured.figures}
    if not talks:
        # Measured with several GPUs; one alone makes no communicator.
        terms |= {"nccl": public.nccl, "nccl_first": public.nccl_first}
    if "kernels" in measured.figures:
        # What was measured below Windows has all that it takes.
        terms["wsl_later"] = _within("measured with the kernels")
    if "context" in measured.figures:
        terms["wsl"] = _within("measured with the context")
    return Costs(
        **terms, notes=(*measured.notes, *(n for n in public.notes if n == _NOT_KNOWN_JOINED))
    )


def _usually_joined(card: str) -> bool | None:
    return None if card in _MAYBE_JOINED else filled_card(card).peers == "nvlink"


def _minor(version: str | None) -> tuple[int, int] | None:
    """(0, 33) of "0.33.0"."""
    parts = (version or "").split(".")[:2]
    return (
        (int(parts[0]), int(parts[1])) if len(parts) > 1 and all(map(str.isdigit, parts)) else None
    )


def _branch(driver: str | None) -> int | None:
    """580 of "580.65.06"."""
    first = (driver or "").split(".")[0]
    return int(first) if first.isdigit() else None
