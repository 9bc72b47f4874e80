"""What is read of an engine core: the KV cache's size, what was resolved, why it was refused."""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
from typing import Any, ClassVar

from memacct_dryrun_files import LeftToTheLog, Record
from memacct_dryrun_worker import wrap

CACHE_LOGGER = "vllm.v1.core.kv_cache_utils"
# More than any device has: with it, only the plan itself can be refused.
PLENTY_BYTES = 1 << 50
STEP_BYTES = 4096

SETTINGS = {
    "model_config": ("max_model_len", "dtype", "quantization", "enforce_eager", "runner_type"),
    "scheduler_config": ("max_num_seqs", "max_num_batched_tokens", "enable_chunked_prefill"),
    "cache_config": (
        "gpu_memory_utilization",
        "block_size",
        "cache_dtype",
        "num_gpu_blocks",
        "enable_prefix_caching",
    ),
    "parallel_config": (
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
        "enable_expert_parallel",
        "disable_custom_all_reduce",
    ),
    "compilation_config": ("mode", "level", "cudagraph_mode", "max_cudagraph_capture_size"),
}


def hook(module: Any) -> None:
    """Has this process's engine core leave a file."""
    wrap(module.EngineCore, "_initialize_kv_caches", _around_initialize)
    wrap(module, "get_kv_cache_configs", _around_plan)


def resolved(vllm_config: Any) -> dict[str, Any]:
    """What the engine made of its arguments, by the names that vLLM has for it."""
    found: dict[str, Any] = {}
    for part, names in SETTINGS.items():
        config = getattr(vllm_config, part, None)
        for name in names:
            value = getattr(config, name, None)
            if value is not None:
                found[name] = _plain(value)
    sizes = getattr(vllm_config.compilation_config, "cudagraph_capture_sizes", None)
    found["cudagraph_sizes_count"] = len(sizes or ())
    architectures = getattr(vllm_config.model_config, "architectures", None)
    if architectures:
        found["architecture"] = ", ".join(architectures)
    if vllm_config.speculative_config is not None:
        found["speculative_method"] = str(vllm_config.speculative_config.method)
    return found | {f"default_{name}": value for name, value in _defaults(vllm_config).items()}


def _defaults(vllm_config: Any) -> dict[str, Any]:
    """What the engine makes of options that are not given, so that giving it is the same.

    Only where that is certain: models that generate, of which no later step lowers the length.
    """
    found: dict[str, Any] = {}
    with contextlib.suppress(AttributeError, ImportError):
        options = importlib.import_module("vllm.engine.arg_utils").EngineArgs
        found["gpu_memory_utilization"] = float(options.gpu_memory_utilization)
    model = vllm_config.model_config
    with contextlib.suppress(Exception):  # another signature: it is not told
        if model.runner_type == "generate":
            found["max_model_len"] = int(model.get_and_verify_max_len(None))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str)) and not hasattr(value, "name"):
        return value
    return str(getattr(value, "name", value)).removeprefix("torch.")


class _Seen(logging.Handler):
    """The numbers in the engine's line about the cache, as it hands them to its logger."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: int | None = None
        self.concurrency: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        arguments = record.args if isinstance(record.args, tuple) else ()
        text = str(record.msg)
        if "KV cache size" in text:
            texts = [a.replace(",", "") for a in arguments if isinstance(a, str)]
            self.tokens = next((int(a) for a in texts if a.isdigit()), self.tokens)
        if "Maximum concurrency" in text:
            self.concurrency = next(
                (float(a) for a in arguments if isinstance(a, float)), self.concurrency
            )


def _around_initialize(original: Any, core: Any, *args: Any, **kwargs: Any) -> Any:
    config = kwargs.get("vllm_config", args[0] if args else core.vllm_config)
    parallel = config.parallel_config
    group = getattr(parallel, "data_parallel_index", None) or parallel.data_parallel_rank
    record = Record(f"core-{group}", group=group, settings=resolved(config))
    seen = _Seen()
    logger = logging.getLogger(CACHE_LOGGER)
    logger.addHandler(seen)
    try:
        result = original(core, *args, **kwargs)
    except BaseException as error:
        record.fail("_initialize_kv_caches", error, **_Plan.refused)
        raise
    finally:
        logger.removeHandler(seen)
    _tell(record, config, result, seen)
    return result


def _tell(record: Record, config: Any, result: Any, seen: _Seen) -> None:
    cache = config.cache_config
    record.tell(
        settings=resolved(config),
        kv_tokens=getattr(cache, "kv_cache_size_tokens", None) or seen.tokens,
        concurrency=getattr(cache, "kv_cache_max_concurrency", None) or seen.concurrency,
        **{"blocks_count": getattr(result, "num_blocks", None), **_Plan.blocks},
    )


# ---------------------------------------------------------------- a cache that does not fit


class _Plan:
    """What is known of the plan that vLLM refused in this process."""

    refused: ClassVar[dict[str, Any]] = {}
    blocks: ClassVar[dict[str, Any]] = {}


def _around_plan(plan: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        configs = plan(*args, **kwargs)
    except ValueError:
        with LeftToTheLog():
            _Plan.refused = _study(plan, args, kwargs)
        raise
    with LeftToTheLog():
        _Plan.blocks = _blocks(args[0], configs)
    return configs


def _study(plan: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """How much each worker would need and the longest request that fits: vLLM's plan asked again.

    By halves, with other sizes: it is fast, and right for every kind of cache that vLLM has.
    memacct.integrations.vllm._shortfall_core asks in the same way, each worker for itself; nothing
    of memacct can be imported here.
    """
    config, specs, available, *rest = args
    model, asked = config.model_config, int(config.model_config.max_model_len)

    def fits(sizes: list[int], length: int) -> bool:
        model.max_model_len = length
        try:
            plan(config, copy.deepcopy(specs), sizes, *copy.deepcopy(rest), **kwargs)
        except ValueError:
            return False
        finally:
            model.max_model_len = asked
        return True

    sizes = [int(size) for size in available]
    with _silence():
        need = least(lambda pages: fits([pages * STEP_BYTES] * len(sizes), asked))
        longest = least(lambda length: not fits(list(sizes), length), asked) - 1
        plenty = [need * STEP_BYTES] * len(sizes)
        blocks = _blocks(config, plan(config, specs, plenty, *rest, **kwargs))
    return {
        **blocks,
        "available_bytes": sizes,
        "needed_bytes": need * STEP_BYTES,
        "max_model_len": asked,
        "fitting_max_model_len": longest,
    }


def _blocks(config: Any, configs: list[Any]) -> dict[str, Any]:
    """Of one plan: each worker's block, how many there are, how many the longest request takes."""
    counts = [each.num_blocks for each in configs]
    found: dict[str, Any] = {
        "blocks_count": counts[0],
        "block_bytes": [
            sum(tensor.size for tensor in each.kv_cache_tensors) // count
            for each, count in zip(configs, counts, strict=True)
        ],
    }
    with LeftToTheLog():
        concurrency = kv_cache_utils().get_max_concurrency_for_kv_cache_config(config, configs[0])
        found["request_blocks_count"] = round(counts[0] / concurrency)
    return found


def kv_cache_utils() -> Any:
    """The engine's module that plans caches."""
    return importlib.import_module(CACHE_LOGGER)


def least(holds: Any, high: int = PLENTY_BYTES // STEP_BYTES) -> int:
    """The least number from 1 on for which `holds`, which stays true from there on."""
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


@contextlib.contextmanager
def _silence() -> Any:
    logger = logging.getLogger(CACHE_LOGGER)
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
