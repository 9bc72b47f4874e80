"""What the engine is to be told, with vLLM's own defaults for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct._errors import ConfigError
from memacct._units import GIB

from .cache_layers import CacheSettings
from .model_config import KV_DTYPES, MODEL_DTYPES
from .pool import Serving

if TYPE_CHECKING:
    from .gpus import Gpu
    from .model_config import ModelConfig

DEFAULT_UTILIZATION = 0.92  # vLLM 0.33.0's; 0.90 before
_ENCODER_TYPES = frozenset({"whisper"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """An engine's settings, as far as its memory depends on them.

    Attributes:
        max_model_len_tokens: None is what the model was made for.
        utilization: part of the GPU's total for the engine.
        tensor_parallel_size: GPUs that share each layer.
        pipeline_parallel_size: stages; layers are shared out over them.
        kv_dtype: as ``--kv-cache-dtype``.
        dtype: as ``--dtype``.
        block_tokens: as ``--block-size``; None is vLLM's own choice.
        max_num_batched_tokens: None is ``vllm serve``'s default on that GPU.
        max_num_seqs: None likewise.
        prefix_caching: as ``--enable-prefix-caching``, its default.
        enforce_eager: no CUDA graphs.
        kv_cache_bytes: as ``--kv-cache-memory-bytes``: nothing is estimated.
        weights_bytes: on one GPU, where neither files nor architecture tell.
    """

    max_model_len_tokens: int | None = None
    utilization: float = DEFAULT_UTILIZATION
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    kv_dtype: str = "auto"
    dtype: str = "auto"
    block_tokens: int | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    prefix_caching: bool = True
    enforce_eager: bool = False
    kv_cache_bytes: int | None = None
    weights_bytes: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a value that no engine takes."""
        if not 0 < self.utilization <= 1:
            raise ConfigError(f"utilization {self.utilization} is not above 0 and at most 1")
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value} is not 1 or more")
        if self.block_tokens is not None and self.block_tokens % 16:
            raise ConfigError(f"block size {self.block_tokens} is not a multiple of 16")
        for name, value, allowed in (
            ("KV cache dtype", self.kv_dtype, KV_DTYPES),
            ("dtype", self.dtype, MODEL_DTYPES),
        ):
            if value not in allowed:
                raise ConfigError(f"{name} {value!r} is not one of {', '.join(allowed)}")

    @property
    def cache(self) -> CacheSettings:
        """The part that the layers' caches depend on."""
        return CacheSettings(
            tensor_parallel_size=self.tensor_parallel_size,
            kv_dtype=self.kv_dtype,
            dtype=self.dtype,
            block_tokens=self.block_tokens,
            prefix_caching=self.prefix_caching,
        )


_COUNTS = (
    "max_model_len_tokens",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "block_tokens",
    "max_num_batched_tokens",
    "max_num_seqs",
    "kv_cache_bytes",
    "weights_bytes",
)


def model_length(config: ModelConfig, settings: PlanSettings) -> int:
    """The longest request.

    Raises:
        ConfigError: it is not given and the model does not say, or it is more than it can.
    """
    limit = config.positions_count
    length = settings.max_model_len_tokens or limit
    if length is None:
        raise ConfigError(f"{config.path} does not say how long a request may be: --max-model-len")
    return length


def batch(settings: PlanSettings, gpu: Gpu | None, length: int) -> tuple[int, int]:
    """Tokens of a batch and sequences at the same time.

    Source: vLLM's defaults for its server (0.33.0), which depend on the GPU's size.
    """
    total, is_a100 = (gpu.total_bytes, "A100" in gpu.title) if gpu else (80 * GIB, False)
    if total >= 160 * GIB:
        tokens, sequences = 16384, 1024
    elif total >= 70 * GIB and not is_a100:
        tokens, sequences = 8192, 1024
    else:
        tokens, sequences = 2048, 256
    sequences = settings.max_num_seqs or sequences
    tokens = settings.max_num_batched_tokens or min(tokens, sequences * length)
    return tokens, settings.max_num_seqs or min(sequences, tokens)


def serving(config: ModelConfig, settings: PlanSettings, gpu: Gpu | None) -> Serving:
    """What a request may be under these settings."""
    length = model_length(config, settings)
    tokens, _ = batch(settings, gpu, length)
    encoder = config.size("max_source_positions") if config.model_type in _ENCODER_TYPES else 0
    # Scheduling runs one batch ahead of the GPU, of each stage.
    return Serving(
        max_model_len_tokens=length,
        in_flight_tokens=(settings.pipeline_parallel_size + 1) * tokens,
        encoder_tokens=encoder,
    )
