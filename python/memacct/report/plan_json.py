"""A memory plan as plain data; docs/plan.md has the schema."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from memacct.planning.changes import smallest_changes

if TYPE_CHECKING:
    from memacct.planning.plan import MemoryPlan

SCHEMA = 1


def plan_to_dict(plan: MemoryPlan) -> dict[str, Any]:
    """Everything that a plan knows, for JSON; what is not known is null."""
    config = plan.config
    return {
        "schema_version": SCHEMA,
        "kind": "plan",
        "fits": plan.fits,
        "model": {
            "config": str(config.path),
            "architecture": config.architecture,
            "model_type": config.model_type,
            "layers_count": config.layers_count,
            "parameters_count": plan.weights.parameters_count,
            "longest_tokens": config.positions_count,
        },
        "gpu": asdict(plan.gpu) if plan.gpu else None,
        "settings": asdict(plan.settings)
        | {
            "max_model_len_tokens": plan.serving.max_model_len_tokens,
            "max_num_batched_tokens": plan.max_num_batched_tokens,
            "max_num_seqs": plan.max_num_seqs,
            "kv_dtype": plan.kv_dtype,
            "dtype": config.dtype(plan.settings.dtype),
        },
        "requested_bytes": plan.requested_bytes,
        "weights": asdict(plan.weights),
        "buffers": asdict(plan.buffers),
        "activation": asdict(plan.activation),
        "graphs": asdict(plan.graphs),
        "kv_cache": _cache(plan),
        "longest_tokens": plan.longest_tokens,
        "smallest_utilization": plan.smallest_utilization,
        "notes": list(plan.notes),
        "changes": [asdict(change) for change in smallest_changes(plan)],
    }


def _cache(plan: MemoryPlan) -> dict[str, Any]:
    room = plan.kv_room
    return {
        "bytes": room.bytes if room else None,
        "low_bytes": room.low_bytes if room else None,
        "high_bytes": room.high_bytes if room else None,
        "token_bytes": plan.kv_token_bytes or None,
        "block_bytes": max(plan.pool.block_bytes),
        "request_blocks_count": plan.pool.request_blocks(plan.serving),
        "needed_bytes": plan.kv_needed_bytes,
        "layers": [asdict(layers) for layers in plan.layers],
        "capacity": asdict(plan.capacity) if plan.capacity else None,
        "capacity_low": asdict(plan.capacity_low) if plan.capacity_low else None,
    }
