"""The weights of a model as its safetensors files declare them: headers only, no tensor is read."""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memacct._errors import ConfigError

from .model_config import DTYPE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .model_config import ModelConfig

# Source: the safetensors format: 8 bytes little-endian length, then JSON.
_LENGTH = struct.Struct("<Q")
_HEADER_LIMIT_BYTES = 100_000_000  # of the format itself
_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16}
_BITS |= {"I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8}
_BITS |= {"F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_PLAIN = frozenset({"F64", "F32", "F16", "BF16"})
_SCALES = re.compile(r"scale|zero_point|absmax|\.g_idx$|A_log$|e_score_correction_bias$")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_JOINED = re.compile(r"\.(?:([qkv])|(gate|up))_proj\.")
_EXPERT = re.compile(r"\.experts\.\d+\.")
_TABLES = ("embed_tokens.weight", "lm_head.weight", "wte.weight", "embeddings.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of a file.

    Attributes:
        name: as in the file.
        dtype: the format's name, such as ``BF16``.
        shape: its sizes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements_count(self) -> int:
        """Its elements."""
        return math.prod(self.shape)

    @property
    def stored_bytes(self) -> int:
        """Its size in the file."""
        return -(-self.elements_count * _BITS[self.dtype] // 8)


def stored_tensors(folder: Path) -> tuple[StoredTensor, ...] | None:
    """Every tensor of the safetensors files in a folder; None if there are no such files.

    With an index only the files that it names are read, as engines do.

    Raises:
        ConfigError: a file that is named is missing, or is not of that format.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{index} is not an index of safetensors files") from None
    else:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
        if "model.safetensors" in names:  # beside it there may be another layout of the same
            names = ["model.safetensors"]
    if not names:
        return None
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        if len(missing) == len(names):
            return None  # an index alone: the weights are not on this machine
        raise ConfigError(f"{folder}: {missing[0]} is named in the index and is not there")
    return tuple(tensor for name in names for tensor in read_header(folder / name))


def read_header(path: Path) -> Iterator[StoredTensor]:
    """The tensors that one safetensors file declares.

    Raises:
        ConfigError: it is not such a file.
    """
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
        if not 0 < length <= _HEADER_LIMIT_BYTES:
            raise ConfigError(f"{path} is not a safetensors file")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise ConfigError(f"{path} is not a safetensors file") from None
    for name, entry in header.items():
        if name != "__metadata__":
            yield _tensor(path, name, entry)


def _tensor(path: Path, name: str, entry: Any) -> StoredTensor:
    if not isinstance(entry, dict) or entry.get("dtype") not in _BITS:
        raise ConfigError(f"{path}: tensor {name} is of a type that is not known here")
    return StoredTensor(name=name, dtype=entry["dtype"], shape=tuple(entry.get("shape", ())))


def loaded_sizes(
    tensors: tuple[StoredTensor, ...], config: ModelConfig, dtype: str
) -> Iterator[int]:
    """What an engine on one GPU loads of each, in its own type, with the vocabulary padded.

    Tensors of plain numbers take the engine's type; quantised ones and their scales stay as they
    are stored. What the model does not use is left out: a second head where the embedding is
    tied, layers after the last (for speculation), tables of rotary frequencies. Matrices that the
    engine joins (queries with keys and values, gate with up) are one.
    """
    joined: dict[str, int] = {}
    for tensor in tensors:
        if _is_used(tensor.name, config):
            size = _loaded(tensor, config, DTYPE_BYTES[dtype])
            key = _JOINED.sub(lambda m: ".qkv." if m[1] else ".gate_up.", tensor.name)
            key = _EXPERT.sub(".experts.", key)
            joined[key] = joined.get(key, 0) + size
    yield from joined.values()


def stored_parameters_count(tensors: tuple[StoredTensor, ...], config: ModelConfig) -> int | None:
    """The parameters; None if some are packed, several in one element."""
    if any(tensor.dtype in {"I32", "U8", "I8", "F4"} for tensor in tensors):
        return None
    used = [tensor for tensor in tensors if _is_used(tensor.name, config)]
    return sum(tensor.elements_count for tensor in used if not _SCALES.search(tensor.name))


def _is_used(name: str, config: ModelConfig) -> bool:
    if name.endswith("rotary_emb.inv_freq") or ".masked_bias" in name:
        return False
    if config.tied and name.endswith("lm_head.weight"):
        return False
    layer = _LAYER.search(name)
    return layer is None or config.text is not config.raw or int(layer[1]) < config.layers_count


def _loaded(tensor: StoredTensor, config: ModelConfig, element_bytes: int) -> int:
    if tensor.dtype not in _PLAIN or _SCALES.search(tensor.name):
        return tensor.stored_bytes
    count = tensor.elements_count
    is_table = tensor.name.endswith(_TABLES) and len(tensor.shape) == 2  # noqa: PLR2004 (matrix)
    if is_table and tensor.shape[0] == config.vocabulary_size:
        count += -tensor.shape[0] % 64 * tensor.shape[1]
    return count * element_bytes
