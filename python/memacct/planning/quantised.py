"""How many bits a quantised model keeps for one weight, scales included, as its config says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .model_config import ModelConfig

    Settings = Mapping[str, Any]

_ALL = frozenset({"attention", "mlp", "experts", "mixer"})


@dataclass(frozen=True, slots=True)
class StoredBits:
    """Bits for each weight, and for which kinds of parts."""

    per_element: float
    kinds: frozenset[str] = _ALL


def stored_bits(config: ModelConfig, plain_bits: int) -> StoredBits | None:
    """Bits of a weight in the layers that are quantised; None if the method is not known here.

    Args:
        config: of the model.
        plain_bits: without quantisation.
    """
    settings = config.quantization
    if not settings:
        return StoredBits(plain_bits)
    read = _METHODS.get(str(settings.get("quant_method", "")).lower())
    return read(settings) if read else None


def _fp8(settings: Settings) -> StoredBits:
    block = settings.get("weight_block_size")
    return StoredBits(8 + (32 / (block[0] * block[1]) if block else 0))


def _mxfp4(_: Settings) -> StoredBits:
    return StoredBits(4 + 8 / 32, frozenset({"experts"}))


def _bitsandbytes(settings: Settings) -> StoredBits:
    four = settings.get("load_in_4bit") or settings.get("_load_in_4bit")
    return StoredBits(4 + 32 / 64) if four else StoredBits(8)


def _grouped(settings: Settings) -> StoredBits | None:
    bits, group = settings.get("bits", 4), settings.get("group_size", 128)
    if not isinstance(bits, int) or not isinstance(group, int):
        return None
    # A 16-bit scale and a zero point of the weights' own width for each group.
    return StoredBits(bits + ((16 + bits) / group if group > 0 else 0))


def _compressed(settings: Settings) -> StoredBits | None:
    groups = settings.get("config_groups") or {}
    if len(groups) != 1:
        return None  # several schemes in one model: which layer has which is not derived here
    weights = next(iter(groups.values())).get("weights") or {}
    bits, group = weights.get("num_bits"), weights.get("group_size")
    if not isinstance(bits, int):
        return None
    if weights.get("strategy") == "group" and isinstance(group, int):
        return StoredBits(bits + 16 / group)
    return StoredBits(bits)


_METHODS: dict[str, Callable[[Settings], StoredBits | None]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "gptq": _grouped,
    "gptq_marlin": _grouped,
    "awq": _grouped,
    "awq_marlin": _grouped,
    "mxfp4": _mxfp4,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed,
}
