"""What can be fitted: the values of each goal in the order in which they ask for more."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from memacct._errors import ConfigError, MemacctError
from memacct.cards import all_cards
from memacct.dry_run.arguments import number_of, with_option
from memacct.dry_run.between import LENGTH, UTILIZATION
from memacct.dry_run.neighbours import held_bytes
from memacct.dry_run.planned import plan_of
from memacct.planning import read_config
from memacct.planning.pool import ceil_div

if TYPE_CHECKING:
    from memacct.dry_run.request import Machine, Request
    from memacct.dry_run.result import DryRun

GoalName = Literal["max-model-len", "utilization", "max-num-seqs", "tp", "gpu"]
GOALS: tuple[GoalName, ...] = ("max-model-len", "utilization", "max-num-seqs", "tp", "gpu")

SEQUENCES, PARALLEL = "--max-num-seqs", "--tensor-parallel-size"
#: Of goals whose end a run tells: the option, and the setting of a run without it.
ENDS = {
    "max-model-len": (LENGTH, "max_model_len"),
    "max-num-seqs": (SEQUENCES, "max_num_batched_tokens"),
}
_MOST_CARDS = 8  # of one machine
_OLDEST = (7, 5)  # the least compute capability that vLLM takes
_PERCENT = 100
_OF_CARD = (
    "gpu",
    "title",
    "driver_name",
    "total_bytes",
    "cuda_total_bytes",
    "compute_capability",
    "sm_count",
    "l2_bytes",
    "sources",
)
_LENGTH_TOLD = re.compile(r"--max-model-len (\d+)")
# Engines that keep one block of the KV cache for themselves and count it before they start.
_KEEPS_ONE = ("0.33.",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Something to be made as large, or as small, as it can be.

    Attributes:
        name: of it.
        values: in the order in which they ask for more of a GPU.
        request_of: the request with a value.
        text_of: a value for people, in the unit of its option.
        begin: the index to begin with where no formula knows better.
        hopeless: kinds of refusals that no value can change.
        too_little: kinds that ask for a later value.
        foretell: the last index that fits, from a run of one; None where it does not tell.
        prove: why the next value does not fit, from a run that fits.
        beyond_last: why there is no value after the last.
        skips: an engine that refuses a value says nothing of the others.
    """

    name: GoalName
    values: Sequence[object]
    request_of: Callable[[int], Request]
    text_of: Callable[[int], str]
    begin: int
    hopeless: frozenset[str] = frozenset()
    too_little: frozenset[str] = frozenset()
    foretell: Callable[[DryRun], int | None] = lambda _: None
    prove: Callable[[DryRun], str | None] = lambda _: None
    beyond_last: str = "there is no other"
    skips: bool = False


def make_goal(
    name: str, request: Request, machine_of: Callable[[str], Machine], limit: int | None = None
) -> Goal:
    """The goal of that name.

    Args:
        name: one of `GOALS`.
        request: whose option, or card, is to be fitted.
        machine_of: the machine with a card of that name.
        limit: the most tokens or sequences, where a run has told it.

    Raises:
        ConfigError: no such goal, or nothing tells where it ends.
    """
    if name == "max-model-len":
        return _length(request, limit)
    if name == "utilization":
        return _utilization(request)
    if name == "max-num-seqs":
        return _sequences(request, limit)
    if name == "tp":
        return _parallel(request)
    if name == "gpu":
        return _gpu(request, machine_of)
    raise ConfigError(f"--fit {name!r} is not one of {', '.join(GOALS)}")


def spare_bytes(run: DryRun) -> int | None:
    """What a run left on its fullest GPU beyond one request; negative where that is missing."""
    if run.refusal is not None:
        return None if run.refusal.missing is None else -run.refusal.missing.bytes
    found = []
    for rank in run.ranks:
        if None in {rank.kv_room_bytes, rank.kv_block_bytes, run.kv_request_blocks_count}:
            return None
        needed = ((run.kv_request_blocks_count or 0) + 1) * (rank.kv_block_bytes or 0)
        found.append((rank.kv_room_bytes or 0) - needed)
    return min(found, default=None)


def with_card(ours: Machine, other: Machine) -> Machine:
    """Our machine with the other's cards: its GPUs' number, neighbours and the rest stay."""
    return replace(ours, **{name: getattr(other, name) for name in _OF_CARD})


def _with(request: Request, option: str, value: object) -> Request:
    return replace(request, arguments=with_option(request.arguments, option, value))


def _length(request: Request, limit: int | None) -> Goal:
    if limit is None:
        limit = read_config(request.model).positions_count
    if limit is None:
        raise ConfigError(f"{request.model} does not say how long a request may be")

    def foretell(run: DryRun) -> int | None:
        told = run.refusal and _LENGTH_TOLD.search(" ".join(run.refusal.suggestions))
        if told:
            return int(told[1]) - 1
        block = run.settings.get("block_size")
        if run.verdict != "starts" or not isinstance(block, int):
            return None
        blocks, wanted = run.kv_blocks_count or 0, run.kv_request_blocks_count
        if wanted != ceil_div(int(str(run.settings["max_model_len"])), block):
            return None  # layers that keep a part of a request only
        return (blocks - 1) * block - 1

    return Goal(
        name="max-model-len",
        values=range(1, limit + 1),
        request_of=lambda index: _with(request, LENGTH, index + 1),
        text_of=lambda index: str(index + 1),
        begin=limit - 1,
        hopeless=frozenset({"weights", "free below requested"}),
        foretell=foretell,
        prove=_no_longer,
        beyond_last=f"the model was made for {limit:,} tokens",
    )


def _no_longer(run: DryRun) -> str | None:
    """Why one token more does not fit: it would take a block more than there is."""
    block, length = run.settings.get("block_size"), run.settings.get("max_model_len")
    wanted, blocks = run.kv_request_blocks_count, run.kv_blocks_count
    if not isinstance(block, int) or not isinstance(length, int) or blocks is None:
        return None
    kept = 1 if run.versions.get("vllm", "").startswith(_KEEPS_ONE) else 0
    if wanted != ceil_div(length, block) or length % block or wanted + 1 + kept <= blocks:
        return None
    keeps = " and the engine keeps one" if kept else ""
    return (
        f"a token more would take {wanted + 1:,} blocks{keeps}; there are {blocks:,}, and longer "
        "requests never leave an engine more of them"
    )


def _utilization(request: Request) -> Goal:
    values = [each / _PERCENT for each in range(_PERCENT, 0, -1)]

    def foretell(run: DryRun) -> int | None:
        spare = spare_bytes(run)
        kinds = {"no room for KV cache", "KV cache below one request"}
        if spare is None or (run.refusal is not None and run.refusal.kind not in kinds):
            return None
        wanted = max(((each.requested_bytes or 0) - spare) / each.total_bytes for each in run.ranks)
        return _PERCENT - math.ceil(wanted * _PERCENT)

    return Goal(
        name="utilization",
        values=values,
        request_of=lambda index: _with(request, UTILIZATION, f"{values[index]:.2f}"),
        text_of=lambda index: f"{values[index]:.2f}",
        begin=_PERCENT // 10,
        hopeless=frozenset({"weights", "activation"}),
        too_little=frozenset({"free below requested", "graphs"}),
        foretell=foretell,
        beyond_last="there is no smaller step",
    )


def _sequences(request: Request, limit: int | None) -> Goal:
    limit = number_of(request.arguments, "--max-num-batched-tokens") or limit
    if limit is None:
        limit = plan_of(request).max_num_batched_tokens
    return Goal(
        name="max-num-seqs",
        values=range(1, limit + 1),
        request_of=lambda index: _with(request, SEQUENCES, index + 1),
        text_of=lambda index: str(index + 1),
        begin=limit - 1,
        hopeless=frozenset({"free below requested"}),
        beyond_last=f"an engine takes no more sequences than tokens of a batch, {limit:,}",
    )


def _parallel(request: Request) -> Goal:
    stages = number_of(request.arguments, "--pipeline-parallel-size") or 1
    most = max(request.machine.count // stages, 1) if request.machine.count > 1 else _MOST_CARDS
    values = [size for size in range(most, 0, -1) if _is_split(request, size)]

    def changed(index: int) -> Request:
        machine = replace(request.machine, count=values[index] * stages)
        return _with(replace(request, machine=machine), PARALLEL, values[index])

    return Goal(
        name="tp",
        values=values,
        request_of=changed,
        text_of=lambda index: str(values[index]),
        begin=len(values) - 1,
        beyond_last="there is no smaller number",
        skips=True,
    )


def _is_split(request: Request, size: int) -> bool:
    """Whether the heads of attention can be shared by so many GPUs."""
    try:
        return read_config(request.model).heads_count % size == 0
    except (MemacctError, KeyError, TypeError):
        return size & (size - 1) == 0


def _gpu(request: Request, machine_of: Callable[[str], Machine]) -> Goal:
    found = []
    held = sum(map(held_bytes, request.machine.neighbours_bytes))
    for card in all_cards():
        capability = card.compute_capability
        total = card.engine_total()
        if total is None or capability is None or capability < _OLDEST or card.unified:
            continue
        if total[0].size_bytes < held:
            continue
        found.append((total[0].size_bytes, card.name))
    names = [name for _, name in sorted(found, reverse=True)]

    def changed(index: int) -> Request:
        return replace(request, machine=with_card(request.machine, machine_of(names[index])))

    return Goal(
        name="gpu",
        values=names,
        request_of=changed,
        text_of=lambda index: names[index],
        begin=len(names) // 2,
        beyond_last="the catalogue has no smaller card",
        skips=True,
    )
