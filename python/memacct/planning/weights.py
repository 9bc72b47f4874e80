"""What a model's weights take on one GPU: from its files, else from its architecture."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct._errors import ConfigError
from memacct._units import MIB

from .allocator_rounding import allocated_bytes
from .checkpoint import loaded_sizes, stored_parameters_count, stored_tensors
from .model_config import DTYPE_BYTES
from .part import FIRST, LAST
from .parts import has_formula, parameters_count, parts
from .pool import stage_of_layers
from .quantised import stored_bits
from .rotary import rotary_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model_config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What the weights take on the fullest of the GPUs.

    Attributes:
        bytes: the best figure; None if neither the files nor the architecture tell.
        low_bytes: not less than this.
        high_bytes: not more than this.
        parameters_count: of the whole model, as counted in public.
        parts_bytes: by kind, where they come from the architecture.
        source: where the figure comes from, in words.
    """

    bytes: int | None
    low_bytes: int | None
    high_bytes: int | None
    parameters_count: int | None
    parts_bytes: Mapping[str, int]
    source: str


# What was seen between this arithmetic and engines' own figures is below these parts of the whole;
# quantised formats are repacked for their kernels.
_EXACT_RATIO, _REPACKED_RATIO = 0.005, 0.03
# The allocator may give a weight a block that a temporary left (rotary tables in float32), up to
# this much larger: with vLLM's limit on splitting the whole block counts. Llama-3.1: 64 MiB for 48.
_LEFT_OVER_BYTES = 20 * MIB


def model_weights(config: ModelConfig, *, dtype: str = "auto", tp: int = 1, pp: int = 1) -> Weights:
    """What the weights take on one GPU of `tp` that share each layer, in `pp` stages.

    Raises:
        ConfigError: a file of the model is broken, or its layers cannot be split so.
    """
    element = config.dtype(dtype)
    tensors = stored_tensors(config.folder) if config.path.name == "config.json" else None
    formula = _from_parts(config, element, tp, pp) if has_formula(config) else None
    if tensors is None:
        if formula is not None:
            return formula
        return _unknown(config)
    sizes = [*rotary_tables(config, element), *loaded_sizes(tensors, config, element)]
    whole = allocated_bytes(sizes)
    count = stored_parameters_count(tensors, config)
    if tp * pp == 1:
        copies = formula.parts_bytes.get("copies", 0) if formula else 0
        return _known(whole + copies, count, "the headers of its safetensors files", config)
    if formula is not None and formula.bytes is not None:
        alone = _from_parts(config, element, 1, 1).bytes
        share = whole * formula.bytes // alone if alone else None
        source = "its safetensors files, shared out as its architecture is"
        return _known(share, count, source, config)
    return _anyhow_shared(whole, count, tp, pp)


def _anyhow_shared(whole: int, count: int | None, tp: int, pp: int) -> Weights:
    """Between an even share and all of it on each GPU of a stage."""
    low = whole // (tp * pp)
    return Weights(
        bytes=low,
        low_bytes=low,
        high_bytes=whole,
        parameters_count=count,
        parts_bytes={},
        source="its safetensors files; how they are shared out is not known",
    )


def _unknown(config: ModelConfig) -> Weights:
    what = f"{config.architecture} ({config.model_type})"
    source = f"not known: no safetensors files beside {config.path.name}, no formula for {what}"
    return Weights(
        bytes=None,
        low_bytes=None,
        high_bytes=None,
        parameters_count=None,
        parts_bytes={},
        source=source,
    )


def _known(
    value: int | None,
    count: int | None,
    source: str,
    config: ModelConfig,
    parts_bytes: Mapping[str, int] | None = None,
) -> Weights:
    ratio = _REPACKED_RATIO if config.quantization else _EXACT_RATIO
    margin = int(value * ratio) if value is not None else 0
    return Weights(
        bytes=value,
        low_bytes=None if value is None else value - margin,
        high_bytes=None if value is None else value + max(margin, _LEFT_OVER_BYTES),
        parameters_count=count,
        parts_bytes=parts_bytes or {},
        source=source,
    )


def _from_parts(config: ModelConfig, dtype: str, tp: int, pp: int) -> Weights:
    bits = stored_bits(config, DTYPE_BYTES[dtype] * 8)
    if bits is None:
        return _unknown(config)
    if config.vocabulary_size and tp > 1 and config.hidden_size % tp:
        raise ConfigError(f"a width of {config.hidden_size} cannot be split over {tp} GPUs")
    stage_of = stage_of_layers(config.layers_count, pp)
    plain_bits = DTYPE_BYTES[dtype] * 8
    stages = [[("rotary", each) for each in rotary_tables(config, dtype)] for _ in range(pp)]
    for part in parts(config, tp):
        kept_bits: float = 32 if part.wide else plain_bits
        if part.quantised and part.kind in bits.kinds:
            kept_bits = bits.per_element
        size = int(part.elements_count * kept_bits / 8)
        where = {FIRST: 0, LAST: pp - 1}.get(part.layer)
        stages[stage_of[part.layer] if where is None else where].append((part.kind, size))
        if part.kind == "embedding" and config.tied and pp > 1:
            stages[-1].append(("head", size))
    fullest = max(stages, key=lambda stage: sum(size for _, size in stage))
    by_kind: Counter[str] = Counter()
    for kind, size in fullest:
        by_kind[kind] += size
    total = allocated_bytes(size for _, size in fullest)
    by_kind["rounding"] = total - by_kind.total()
    source = "the shapes of its architecture"
    return _known(total, parameters_count(config), source, config, dict(by_kind))
