"""An engine that is nothing but arithmetic: for searches and reckonings, whose law it is.

Its terms are a line each; what it does with them (what it asks for, when it refuses, what it makes
of the rest) is vLLM's, and tests/engine holds the same to the real one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memacct._units import GIB, KIB, MIB
from memacct.dry_run.arguments import number_of, value_of
from memacct.dry_run.neighbours import PAGE_BYTES, held_bytes
from memacct.dry_run.result import Amount, Count, DryRun, Rank, Refusal, Row

if TYPE_CHECKING:
    from memacct.dry_run.request import Request

BLOCK = 16
CONTEXT = 400 * MIB


def amount(value: int) -> Amount:
    return Amount(bytes=value, low_bytes=value, high_bytes=value, source="arithmetic")


@dataclass(slots=True)
class AnalyticEngine:
    """Runs requests and notes them.

    Attributes:
        weights_bytes: on one card; shared by several.
        token_bytes: of the KV cache, on one card; shared likewise.
        sequence_bytes: of buffers for each sequence.
        limit_tokens: max_model_len unless it is told.
        requests: that were run.
    """

    weights_bytes: int = 3 * GIB
    token_bytes: int = 48 * KIB
    sequence_bytes: int = 600 * KIB
    activation_bytes: int = 300 * MIB
    graphs_bytes: int = 130 * MIB
    limit_tokens: int = 131_072
    requests: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> DryRun:
        self.requests.append(request)
        given, machine = request.arguments, request.machine
        utilization = float(value_of(given, "--gpu-memory-utilization") or 0.92)
        length = number_of(given, "--max-model-len") or self.limit_tokens
        sequences = number_of(given, "--max-num-seqs") or 256
        cards = number_of(given, "--tensor-parallel-size") or 1
        total, weights = machine.cuda_total_bytes, self.weights_bytes // cards
        neighbours = sum(map(held_bytes, machine.neighbours_bytes))
        requested, free = math.ceil(total * utilization), total - CONTEXT - neighbours
        buffers = sequences * self.sequence_bytes
        rest = weights + buffers + self.activation_bytes + self.graphs_bytes
        block = BLOCK * self.token_bytes // cards
        room = number_of(given, "--kv-cache-memory-bytes") or requested - rest
        wanted, blocks = -(-length // BLOCK), max(room, 0) // block
        held = weights + buffers + blocks * block + self.graphs_bytes
        rank = Rank(
            rank=0,
            device=0,
            total_bytes=total,
            requested_bytes=requested,
            free_at_start_bytes=free,
            weights=amount(weights),
            activation_peak=amount(self.activation_bytes),
            graphs_estimated=amount(self.graphs_bytes),
            graphs=amount(self.graphs_bytes),
            kv_cache=amount(blocks * block),
            kv_room_bytes=room,
            kv_block_bytes=block,
            peak=self._rows(total, neighbours, weights + buffers + self.activation_bytes),
            started=self._rows(total, neighbours, held - blocks * block, blocks * block),
        )
        refusal = None
        if free < requested:
            refusal = self._refusal("free below requested", requested - free)
        elif room <= 0:
            refusal = self._refusal("no room for KV cache", (wanted + 1) * block - room)
        elif room < (wanted + 1) * block:
            refusal = self._refusal("KV cache below one request", (wanted + 1) * block - room)
        elif free < held:
            refusal = self._refusal("graphs", held - free)
        settings = {
            "max_model_len": length,
            "max_num_seqs": sequences,
            "block_size": BLOCK,
            "gpu_memory_utilization": utilization,
        }
        ratio = blocks / wanted
        tokens = int(ratio * length)
        starts = refusal is None
        return DryRun(
            request=request,
            verdict="starts" if starts else "does not fit",
            versions={"vllm": "0.33.0"},
            settings=settings | ({"num_gpu_blocks": blocks} if starts else {}),
            ranks=(rank,),
            kv_tokens=Count(value=tokens, low=tokens, high=tokens) if starts else None,
            concurrency=Count(value=ratio, low=ratio, high=ratio) if starts else None,
            kv_blocks_count=blocks if starts else None,
            kv_request_blocks_count=wanted,
            refusal=refusal,
            took_s=40.0,
        )

    @staticmethod
    def _refusal(kind: str, missing: int) -> Refusal:
        return Refusal(kind=kind, message="arithmetic", missing=amount(missing))

    @staticmethod
    def _rows(total: int, neighbours: int, torch: int, cache: int = 0) -> tuple[Row, ...]:
        rows = {"weights": torch, "KV cache": cache, "CUDA context": CONTEXT}
        rows["PyTorch's cached pages"] = -cache % PAGE_BYTES
        if neighbours:
            rows["neighbours"] = neighbours
        rows["free"] = total - sum(rows.values())
        return tuple(Row(name=name, amount=amount(value)) for name, value in rows.items())
