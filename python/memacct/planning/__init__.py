"""Plans an engine's memory from a model's config: weights, KV cache, concurrency; no engine.

Pure: it reads config.json and the headers of safetensors files, and imports neither torch nor
an engine.
"""

from __future__ import annotations

from .cache_layers import CacheSettings, cache_layers
from .changes import Change, smallest_changes
from .gpus import Gpu, live_gpu, named_gpu
from .model_config import ModelConfig, read_config
from .parts import parameters_count
from .plan import MemoryPlan, make_plan
from .pool import CacheLayer, Capacity, Pool, Serving, make_pool
from .settings import PlanSettings
from .weights import Weights, model_weights

__all__ = [
    "CacheLayer",
    "CacheSettings",
    "Capacity",
    "Change",
    "Gpu",
    "MemoryPlan",
    "ModelConfig",
    "PlanSettings",
    "Pool",
    "Serving",
    "Weights",
    "cache_layers",
    "live_gpu",
    "make_plan",
    "make_pool",
    "model_weights",
    "named_gpu",
    "parameters_count",
    "read_config",
    "smallest_changes",
]
