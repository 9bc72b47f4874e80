"""What FlashInfer's fused experts allocate in C++ while they run, allocated here in their stead.

FlashInfer allocates in Python, but for its experts: the launchers of TensorRT-LLM's kernels ask
PyTorch for the buffers between their two products, gigabytes in a profiling pass, and give them
back on return. As those launchers are not compiled in a dry run, the same sizes are asked for here.
What the products' own kernels ask for besides depends on how they were tuned, and is left out.

Source: csrc/trtllm_fused_moe_kernel_launcher.cu and fused_moe/runner.h of FlashInfer 0.7.2.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SOURCE = "data/csrc/trtllm_fused_moe_kernel_launcher.cu"
_TILES = (8, 16, 32, 64, 128)
_INT, _FLOAT, _BF16 = 4, 4, 2
_LEAST_BITS = 128 * 1024 * 8  # of a buffer between the products
_LEAST_HISTOGRAM = 512
_MXFP8 = 2  # Fp8QuantizationType
_UNGATED = frozenset({0, 1, 2, 6, 9})  # ActivationType: Gelu, Relu, Silu, Relu2, Identity


def allocate(name: str, arguments: Sequence[Any]) -> bool:
    """Allocates what the launcher of that name does, and frees it; False if that is not known."""
    names = parameters(name)
    if not names or len(names) != len(arguments):
        return False
    import torch

    values = dict(zip(names, arguments))  # noqa: B905 (Python 3.9; checked above)
    try:
        sizes = sizes_bytes(name, values)
    except (KeyError, TypeError, AttributeError):
        return False
    if sizes is None:
        return False
    device = values["hidden_states"].device
    # All are there at once, until the launcher goes.
    buffers = [torch.empty(size, dtype=torch.uint8, device=device) for size in sizes]
    del buffers
    return True


@cache
def parameters(name: str) -> tuple[str, ...]:
    """The parameters of a launcher, by the source that FlashInfer ships to compile it."""
    spec = importlib.util.find_spec("flashinfer")
    places = spec.submodule_search_locations if spec is not None else None
    source = Path(next(iter(places or ["."]))) / _SOURCE
    if not source.exists():
        return ()
    text = source.read_text(encoding="utf-8", errors="replace")
    found = re.search(rf"^Array<Tensor> {name}\(([^{{]*)\) {{", text, re.MULTILINE)
    return tuple(re.findall(r"(\w+)\s*(?:,|$)", found.group(1))) if found else ()


def sizes_bytes(name: str, values: Mapping[str, Any]) -> list[int] | None:
    """The sizes of a launcher's buffers; None if it is one that is not known."""
    if values.get("is_da_body_preparation") or len(values.get("da_routing_metadata") or ()):
        return None
    makers = {
        "trtllm_bf16_moe": _bf16,
        "trtllm_fp8_block_scale_moe": _fp8,
        "trtllm_fp4_block_scale_moe": _fp4,
    }
    maker = makers.get(name)
    return None if maker is None else maker(values)


def _bf16(values: Mapping[str, Any]) -> list[int]:
    rows, sizes = _routing(values, _TILES)
    inner, hidden = values["intermediate_size"], _hidden(values)
    return [*sizes, _least(rows, inner, 16) * inner * _BF16, _second(values, rows, hidden)]


def _fp8(values: Mapping[str, Any]) -> list[int]:
    scaled_by_32 = int(values["quantization_type"]) == _MXFP8
    rows, sizes = _routing(values, (*_TILES, 256) if scaled_by_32 else _TILES)
    inner = values["intermediate_size"]
    first = _least(rows, inner, 8)
    if scaled_by_32:
        sizes += [first * inner, _swizzled(first, inner // 32)]
    else:
        # DeepSeek's blocks: the activation is a kernel of its own, between two buffers.
        both = inner * (1 if int(values["act_type"]) in _UNGATED else 2)
        sizes += [first * both, both // 128 * rows * _FLOAT]
        sizes += [first * inner, inner // 128 * first * _FLOAT]
    return [*sizes, _second(values, rows, _hidden(values))]


def _fp4(values: Mapping[str, Any]) -> list[int]:
    import torch

    given, scale = values["hidden_states"], values["hidden_states_scale"]
    hidden = _hidden(values)
    packed, plain = given.dtype == torch.uint8, given.dtype == torch.bfloat16
    weights_by_16 = _weights_by_16(values, hidden)
    # 192 only where both sides have scales of their blocks, alike.
    by_32 = not weights_by_16 and not packed and scale is not None
    alike = (192,) if (weights_by_16 and packed) or by_32 else ()
    tiles = _TILES[:-1] if plain else (*_TILES, *alike, 256)
    rows, sizes = _routing(values, tiles)
    inner = values["intermediate_size"]
    first = _least(rows, inner, 4 if packed else 16 if plain else 8)
    if packed or (not plain and scale is not None):
        sizes.append(_swizzled(first, inner // (16 if weights_by_16 else 32)))
    if values["per_token_scales"] is not None:
        sizes += [first * inner * _BF16, first * inner // 2, first * _FLOAT]
    else:
        sizes.append(first * (inner // 2 if packed else inner * _BF16 if plain else inner))
    return [*sizes, _second(values, rows, hidden)]


def _routing(values: Mapping[str, Any], tiles: Sequence[int]) -> tuple[int, list[int]]:
    """Rows after each expert's share was padded, and the sizes of the routing's tables."""
    tokens = values["hidden_states"].shape[0]
    shared = values.get("num_fused_shared_experts") or 0
    each, experts = values["top_k"] + shared, values["num_experts"] + shared
    tactic = list(values.get("config_index") or values.get("moe_tactic") or (-1, -1))
    tile = tactic[0]
    if -1 in tactic:
        tile = default_tile(tiles, tokens * each / (values["local_num_experts"] + shared))
    filled = min(experts, tokens * each)
    blocks = filled + (tokens * each - filled) // tile
    rows = blocks * tile
    counts = [experts, 1, tokens * each, rows + 1, tokens * each]
    counts += [max(2 * experts, _LEAST_HISTOGRAM), blocks, blocks, 1]
    return rows, [count * _INT for count in counts]


def default_tile(tiles: Sequence[int], average: float) -> int:
    """The launcher's choice where nothing was tuned: the one before the first that suffices."""
    place = next((i for i, tile in enumerate(tiles) if tile >= average), len(tiles) - 1)
    return tiles[max(place - 1, 0)]


def _least(rows: int, columns: int, bits: int) -> int:
    """Rows of a buffer, which has a least size."""
    return max(rows, -(-_LEAST_BITS // (columns * bits)))


def _second(values: Mapping[str, Any], rows: int, hidden: int) -> int:
    """Bytes of what the second product gives."""
    valid = values.get("valid_hidden_size")
    columns = hidden if valid is None else -(-valid // 128) * 128
    return _least(rows, columns, 16) * columns * _BF16


def _hidden(values: Mapping[str, Any]) -> int:
    """Elements of a token; two of FP4 are in one byte."""
    import torch

    given = values["hidden_states"]
    return int(given.shape[1]) * (2 if given.dtype == torch.uint8 else 1)


def _weights_by_16(values: Mapping[str, Any], hidden: int) -> bool:
    """Whether 16 weights have a scale (NVFP4) and not 32 (MXFP4)."""
    shared = values.get("num_fused_shared_experts") or 0
    factor = 1 if int(values["act_type"]) in _UNGATED else 2
    experts = values["local_num_experts"] + shared
    weights = experts * values["intermediate_size"] * factor * hidden
    return bool(weights // values["gemm1_weights_scale"].numel() <= 16)  # noqa: PLR2004


def _swizzled(rows: int, columns: int) -> int:
    """Scales of one byte, laid out in blocks of 128 rows and 4 columns."""
    return -(-rows // 128) * 128 * (-(-columns // 4) * 4)
