"""A card of the catalogue as settings of the simulated machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memacct.cards import filled_card

if TYPE_CHECKING:
    from memacct.cards import Card


def card_settings(name: str | Card) -> dict[str, Any]:
    """The arguments of `SimulatedGpu` that make a device such a card.

    Raises:
        ConfigError: there is no such card.
    """
    filled = filled_card(name)
    return {
        "total_bytes": filled.total_bytes,
        "cuda_total_bytes": filled.cuda_total_bytes,
        # What is NVML's and not CUDA's is the driver's: nobody gets it.
        "reserved_bytes": filled.total_bytes - filled.cuda_total_bytes,
        "name": filled.driver_name,
        "compute_capability": filled.compute_capability,
        "sm_count": filled.sm_count,
        "l2_bytes": filled.l2_bytes,
        "integrated": filled.card.unified,
        "peers": filled.peers,
    }
