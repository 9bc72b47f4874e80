"""The costs of one request: its machine's, for the engine and the GPUs that it takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .arguments import number_of
from .costs import Costs, known_costs
from .engine_python import about

if TYPE_CHECKING:
    from pathlib import Path

    from .request import Request

# Options that make several GPUs work together; those of the first share each layer.
_GROUPS = ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size")


def costs_of(request: Request, *, calibration: Path | None = None, **known: Any) -> Costs:
    """What a dry run tells its simulated GPU, and what it leaves open.

    Args:
        request: what is asked.
        calibration: a measurement of the user's; default the one in the usual place, if any.
        known: of the machine, instead of what it says itself; see `known_costs`.

    Raises:
        ConfigError: `calibration` is no such file, or is not of this card.
    """
    engine = about(request.python)
    machine = request.machine
    sizes = [number_of(request.arguments, name) or 1 for name in _GROUPS]
    told: dict[str, Any] = {
        "tensor_parallel_size": sizes[0],
        "gpus_count": max(sizes),
        "nvlink": machine.nvlink,
        "vllm": engine.vllm,
        "torch": engine.torch,
        "driver": machine.driver,
        "wsl": machine.wsl,
    }
    return known_costs(machine, calibration=calibration, **{**told, **known})


def told_costs(costs: Costs) -> dict[str, object]:
    """What a simulated GPU is told of them, plain: runs that were told the same are equal."""
    return {**asdict(costs.simulated()), "context_bytes": costs.simulated_context_bytes}
