"""A model's config.json, read as plain data: what of it planning needs, with its defaults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Bytes of one element. What vLLM calls "fp8" without more is e4m3.
DTYPE_BYTES = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "half": 2,
    "float": 4,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}
KV_DTYPES = ("auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2")
MODEL_DTYPES = ("auto", "bfloat16", "float16", "half", "float32")
# Where the language model of a model of several modalities keeps its own settings.
_TEXT_KEYS = ("text_config", "llm_config", "language_config", "thinker_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A config.json.

    Attributes:
        path: the file.
        raw: all of it.
        text: the language model's part; the same as ``raw`` where there is only that.
    """

    path: Path
    raw: Mapping[str, Any]
    text: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where the weights would be."""
        return self.path.parent

    @property
    def architecture(self) -> str:
        """The class that the config names, such as ``LlamaForCausalLM``."""
        names = self.raw.get("architectures") or self.text.get("architectures") or ()
        return str(names[0]) if names else self.model_type

    @property
    def model_type(self) -> str:
        """Of the language model, such as ``gemma3_text``."""
        return str(self.text.get("model_type") or self.raw.get("model_type") or "unknown")

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of these settings that is there and not null."""
        for name in names:
            if self.text.get(name) is not None:
                return self.text[name]
        return default

    def size(self, *names: str) -> int:
        """A setting that must be there: a positive whole number.

        Raises:
            ConfigError: it is not, or is something else.
        """
        value = self.get(*names)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise ConfigError(
                f"{self.path}: {names[0]} is {value!r}, and must be a positive whole number "
                f"for {self.architecture}"
            )
        return value

    @property
    def layers_count(self) -> int:
        """Decoder layers."""
        return self.size("num_hidden_layers", "n_layer", "decoder_layers", "num_layers")

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.size("hidden_size", "n_embd", "d_model")

    @property
    def heads_count(self) -> int:
        """Query heads."""
        return self.size("num_attention_heads", "n_head", "decoder_attention_heads")

    @property
    def kv_heads_count(self) -> int:
        """Key and value heads; those of the queries if nothing else is said."""
        if self.get("multi_query", default=False) and not self.get("new_decoder_architecture"):
            return 1
        names = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
        return self.size(*names) if self.get(*names) is not None else self.heads_count

    @property
    def head_size(self) -> int:
        """Width of a head."""
        named = self.get("head_dim", "attention_head_dim", "hidden_size_per_head", "kv_channels")
        return int(named) if named else self.hidden_size // self.heads_count

    @property
    def vocabulary_size(self) -> int:
        """Tokens, before padding."""
        return self.size("vocab_size")

    @property
    def tied(self) -> bool:
        """Whether input and output share one embedding; the two parts may both say it."""
        named = self.get("tie_word_embeddings", default=self.raw.get("tie_word_embeddings"))
        return bool(named) if named is not None else self.model_type in _TIED_BY_DEFAULT

    @property
    def positions_count(self) -> int | None:
        """The longest request that the model was made for; None if the config does not say."""
        names = ("max_position_embeddings", "n_positions", "max_target_positions", "seq_length")
        named = self.get(*names, "max_sequence_length")
        if named is None:
            return None
        scaling = self.rope_scaling
        kind = scaling.get("rope_type", scaling.get("type"))
        original = scaling.get("original_max_position_embeddings")
        factor = float(scaling.get("factor") or 1.0)
        if kind in {"linear", "dynamic"}:
            return int(named * factor)
        if kind == "yarn" and original:
            return int(original * factor)
        return int(named)

    @property
    def rope_scaling(self) -> Mapping[str, Any]:
        """How positions are stretched; empty if they are not."""
        found = self.get("rope_scaling", "rope_parameters", default={})
        return found if isinstance(found, dict) else {}

    @property
    def quantization(self) -> Mapping[str, Any]:
        """The quantisation's settings; empty without."""
        found = self.raw.get("quantization_config") or self.text.get("quantization_config") or {}
        return found if isinstance(found, dict) else {}

    def dtype(self, wanted: str = "auto") -> str:
        """The type of weights and activations.

        Source: vLLM's ``auto``: what the config says, float32 and silence as bfloat16.
        """
        if wanted != "auto":
            return "float16" if wanted == "half" else wanted
        named = self.get("dtype", "torch_dtype") or self.raw.get("torch_dtype")
        named = str(named or "bfloat16").removeprefix("torch.")
        return named if named in {"bfloat16", "float16"} else "bfloat16"

    def kv_dtype(self, wanted: str = "auto", dtype: str = "auto") -> str:
        """The type of the KV cache; ``auto`` is the quantisation's own or that of the model."""
        if wanted != "auto":
            return wanted
        scheme = self.quantization.get("kv_cache_scheme") or {}
        if isinstance(scheme, dict) and scheme.get("type") == "float" and scheme.get("num_bits"):
            return "fp8" if scheme["num_bits"] == 8 else "auto"  # noqa: PLR2004 (bits)
        if str(self.quantization.get("kv_cache_quant_algo", "")).upper() == "FP8":
            return "fp8"
        return self.dtype(dtype)


# transformers' own defaults, for configs that leave it out.
_TIED_BY_DEFAULT = frozenset(
    {"gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n_text", "gpt2", "opt", "whisper"}
)


def read_config(path: Path | str) -> ModelConfig:
    """Reads the config of a model.

    Args:
        path: its folder, or the config.json itself.

    Raises:
        ConfigError: there is none, or it is not one.
        OSError: it cannot be read.
    """
    given = Path(path)
    file = given / "config.json" if given.is_dir() else given
    if not file.exists():
        hint = "no config.json in it" if given.is_dir() else "no such file or folder"
        if not given.is_dir() and str(path).count("/") == 1 and not given.is_absolute():
            hint += "; models are not downloaded here: give the folder of one on this machine"
        raise ConfigError(f"{path}: {hint}")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{file} is not JSON: {error}") from None
    if not isinstance(raw, dict) or not ({"model_type", "architectures"} & raw.keys()):
        raise ConfigError(f"{file} is not a model's config: no model_type, no architectures")
    text = next((raw[key] for key in _TEXT_KEYS if isinstance(raw.get(key), dict)), raw)
    if isinstance(inner := text.get("text_config"), dict):  # thinker_config has one inside
        text = inner
    return ModelConfig(path=file, raw=raw, text=text)
