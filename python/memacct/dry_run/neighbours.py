"""Others on the simulated GPUs: what each holds, as the device has it, and their processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._errors import ConfigError
from memacct._units import MIB, format_bytes, parse_bytes

if TYPE_CHECKING:
    from memacct.dry_run.request import Machine
    from memacct.sim import SimulatedGpu, Tenant

PAGE_BYTES = 2 * MIB  # devices give memory in pages of this size


def parse_neighbour(text: str) -> int:
    """What another process holds on every GPU, of a text such as "12GiB".

    Raises:
        ConfigError: no such size.
    """
    try:
        return parse_bytes(text)
    except ValueError:
        raise ConfigError(f"--neighbour {text!r} is no size such as 12GiB") from None


def held_bytes(asked_bytes: int) -> int:
    """What a neighbour takes of a GPU: whole pages, its context in them."""
    return -(-asked_bytes // PAGE_BYTES) * PAGE_BYTES


def start_neighbours(gpu: SimulatedGpu, machine: Machine) -> tuple[Tenant, ...]:
    """Starts the neighbours on every GPU of a simulated machine; they end with it.

    What a neighbour holds is all that it takes, as nvidia-smi tells it of a process, so its context
    is not added.

    Raises:
        ConfigError: they hold more than such a GPU has.
    """
    held = sum(map(held_bytes, machine.neighbours_bytes))
    if held > machine.cuda_total_bytes:
        raise ConfigError(
            f"neighbours hold {format_bytes(held)}, which is more than the "
            f"{format_bytes(machine.cuda_total_bytes)} of {machine.title}"
        )
    return tuple(
        gpu.tenant(held_bytes(asked), device=device, context_bytes=0)
        for device in range(machine.count)
        for asked in machine.neighbours_bytes
    )
