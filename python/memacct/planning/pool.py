"""The KV cache as a paged pool: groups of layers, blocks, and how many requests fit.

The arithmetic of vLLM's hybrid KV cache manager (0.33.0, layer-outermost layouts, its default),
derived anew: each group of layers has a block table of its own, all tables draw ids from one pool,
and one block id holds one page of every layer of the widest group.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from memacct._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

LayerKind = Literal["full", "latent", "sliding", "chunked", "state", "cross"]
#: Kinds whose blocks are for every token of a request.
_WHOLE = frozenset({"full", "latent"})
# Above this ratio of layers of the most to the least frequent kind, the least frequent one's
# count is the size of a group; below it padding the smaller group wastes less.
_PADDING_RATIO = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLayer:
    """What one layer keeps on one GPU.

    Attributes:
        layer: its number in the model.
        kind: ``full`` attention, ``latent`` (MLA), ``sliding`` window, ``chunked`` local
            attention, ``state`` (Mamba, linear attention, short convolution), ``cross``
            (to an encoder).
        token_bytes: for one token; None for a state.
        state_bytes: for one sequence, however long; None for attention.
        window_tokens: of a sliding window or a chunk.
        state_pages_count: pages a request takes of a state: one, and with prefix caching
            those of its checkpoints.
        block_tokens: tokens of a page; for a state the unit of its checkpoints.
        page_bytes: one page as it is allocated, with its padding.
    """

    layer: int
    kind: LayerKind
    token_bytes: int | None = None
    state_bytes: int | None = None
    window_tokens: int | None = None
    state_pages_count: int = 1
    block_tokens: int
    page_bytes: int

    @property
    def spec(self) -> tuple[object, ...]:
        """What layers of one group must have in common."""
        return (
            self.kind,
            self.window_tokens,
            self.block_tokens,
            self.token_bytes,
            self.state_bytes,
            self.page_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What a request may be, as far as its blocks depend on it.

    Attributes:
        max_model_len_tokens: prompt and answer of the longest request.
        in_flight_tokens: scheduled and not yet settled: batches in flight times
            ``max_num_batched_tokens``. A window keeps its blocks until they are settled.
        encoder_tokens: the longest input of an encoder.
    """

    max_model_len_tokens: int
    in_flight_tokens: int
    encoder_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that share one block table."""

    layers: tuple[CacheLayer, ...]

    def request_blocks(self, serving: Serving) -> int:
        """Blocks that the longest request takes of this table."""
        return max(_request_pages(layer, serving) for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a pool of some bytes holds.

    Attributes:
        blocks_count: whole blocks; vLLM keeps one of them for itself but counts it.
        tokens_count: "GPU KV cache size" in vLLM's log.
        requests_ratio: "Maximum concurrency" there: longest requests at the same time.
    """

    blocks_count: int
    tokens_count: int
    requests_ratio: float


@dataclass(frozen=True, slots=True)
class Pool:
    """The groups, on each stage of a pipeline.

    Attributes:
        groups: of the whole model.
        stage_of: for each layer number the pipeline stage that has it.
        stages_count: GPUs in a row.
    """

    groups: tuple[Group, ...]
    stage_of: tuple[int, ...]
    stages_count: int

    @property
    def block_bytes(self) -> tuple[int, ...]:
        """Bytes of one block id on each stage: the widest group's pages there."""
        return tuple(
            max(
                sum(each.page_bytes for each in group.layers if self.stage_of[each.layer] == stage)
                for group in self.groups
            )
            for stage in range(self.stages_count)
        )

    def request_blocks(self, serving: Serving) -> int:
        """Blocks that the longest request takes."""
        return sum(group.request_blocks(serving) for group in self.groups)

    def blocks(self, available_bytes: int) -> int:
        """Whole blocks in so many bytes on each GPU; the poorest stage decides."""
        return min(max(available_bytes, 0) // each for each in self.block_bytes if each)

    def capacity(self, available_bytes: int, serving: Serving) -> Capacity:
        """What so many bytes on each GPU hold.

        Source: vLLM's ``get_max_concurrency_for_kv_cache_config``; the tokens are the requests
        times their length, not the blocks times theirs.
        """
        blocks = self.blocks(available_bytes)
        requests = blocks / self.request_blocks(serving)
        return Capacity(
            blocks_count=blocks,
            tokens_count=int(requests * serving.max_model_len_tokens),
            requests_ratio=requests,
        )

    def needed_bytes(self, serving: Serving) -> int:
        """What one longest request needs on a GPU, vLLM's own block included."""
        return max(self.block_bytes) * (self.request_blocks(serving) + 1)

    def fits(self, available_bytes: int, serving: Serving) -> bool:
        """Whether the engine starts: one longest request fits beside vLLM's own block."""
        return available_bytes >= self.needed_bytes(serving)

    def longest(self, available_bytes: int, serving: Serving, limit_tokens: int) -> int:
        """The largest max_model_len up to a limit with which the engine starts; 0 if none."""
        low, high = 0, limit_tokens
        while low < high:
            middle = (low + high + 1) // 2
            if self.fits(available_bytes, replace(serving, max_model_len_tokens=middle)):
                low = middle
            else:
                high = middle - 1
        return low


def make_pool(layers: Sequence[CacheLayer], layers_count: int, stages_count: int = 1) -> Pool:
    """Groups the layers as vLLM does.

    Args:
        layers: in the order of the model; a layer with attention and a state is two of them.
        layers_count: of the model, those without a cache included.
        stages_count: pipeline stages.

    Raises:
        ConfigError: the model keeps nothing, or its pages cannot be made equal.
    """
    if not layers:
        raise ConfigError("this model keeps no KV cache: there is nothing to plan")
    groups = [layers] if _one_group(layers) else _split(_equal_pages(layers))
    stage_of = stage_of_layers(layers_count, stages_count)
    return Pool(tuple(Group(tuple(each)) for each in groups), stage_of, stages_count)


def ceil_div(value: int, divisor: int) -> int:
    """Divides and rounds up."""
    return -(-value // divisor)


def _request_pages(layer: CacheLayer, serving: Serving) -> int:
    length = serving.max_model_len_tokens
    if layer.kind == "state":
        return layer.state_pages_count
    if layer.kind == "cross":
        return ceil_div(serving.encoder_tokens, layer.block_tokens)
    if layer.kind in _WHOLE:
        return ceil_div(length, layer.block_tokens)
    window = layer.window_tokens or 0
    if layer.kind == "chunked":
        return ceil_div(min(window + serving.in_flight_tokens, length), layer.block_tokens)
    # One block more: a window need not begin where a block does.
    kept = min(window - 1 + serving.in_flight_tokens, length)
    return ceil_div(kept, layer.block_tokens) + 1


def _one_group(layers: Sequence[CacheLayer]) -> bool:
    """Layers that always need the same number of blocks share a table, whatever their pages."""
    if len({layer.block_tokens for layer in layers}) > 1:
        return False
    kinds = {layer.kind for layer in layers}
    if kinds <= _WHOLE:
        return True
    if len(kinds) > 1:
        return False
    if kinds == {"state"}:
        return len({layer.page_bytes for layer in layers}) == 1
    if kinds == {"cross"}:
        return len({layer.spec for layer in layers}) == 1
    return len({layer.window_tokens for layer in layers}) == 1


def _equal_pages(layers: Sequence[CacheLayer]) -> list[CacheLayer]:
    """Gives every layer the largest page: more tokens in it where they divide it, else padding."""
    largest = max(layer.page_bytes for layer in layers)
    return [_with_page(layer, largest) for layer in layers]


def _with_page(layer: CacheLayer, page_bytes: int) -> CacheLayer:
    if layer.page_bytes == page_bytes or layer.kind == "state":
        return replace(layer, page_bytes=page_bytes)
    ratio, rest = divmod(page_bytes, layer.page_bytes)
    if not rest:
        return replace(layer, page_bytes=page_bytes, block_tokens=layer.block_tokens * ratio)
    if layer.kind == "latent":
        raise ConfigError(
            f"layer {layer.layer}: its page of {layer.page_bytes} bytes cannot be made the "
            f"{page_bytes} bytes of the other layers; vLLM does not start such a model either"
        )
    return replace(layer, page_bytes=page_bytes)


def _split(layers: Sequence[CacheLayer]) -> list[list[CacheLayer]]:
    """Groups of about the same number of layers, each of one spec."""
    buckets: dict[tuple[object, ...], list[CacheLayer]] = defaultdict(list)
    for layer in layers:
        buckets[layer.spec].append(layer)
    counts = [len(bucket) for bucket in buckets.values()]
    size = max(counts) if max(counts) < min(counts) * _PADDING_RATIO else min(counts)
    groups = []
    for bucket in buckets.values():
        groups_count = ceil_div(len(bucket), size)
        # Every n-th layer, so that each stage of a pipeline has some of each group.
        groups += [bucket[first::groups_count] for first in range(groups_count)]
    return groups


def stage_of_layers(layers_count: int, stages_count: int) -> tuple[int, ...]:
    """The stage of each layer: even, what is left over to the later ones, the last excepted."""
    if not 1 <= stages_count <= layers_count:
        raise ConfigError(f"{layers_count} layers cannot be {stages_count} pipeline stages")
    sizes = [layers_count // stages_count] * stages_count
    for extra in range(layers_count % stages_count):
        sizes[-2 - extra] += 1
    return tuple(stage for stage, size in enumerate(sizes) for _ in range(size))
