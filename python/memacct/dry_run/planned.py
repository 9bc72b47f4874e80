"""What `memacct plan`'s formulas say of a request, where they know the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._errors import ConfigError, MemacctError
from memacct.dry_run.arguments import is_given, number_of, value_of
from memacct.dry_run.neighbours import held_bytes
from memacct.planning import Gpu, MemoryPlan, PlanSettings, make_plan, read_config
from memacct.planning.settings import DEFAULT_UTILIZATION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memacct.dry_run.request import Machine, Request

# What changes an engine's memory and no formula knows of.
_UNKNOWN = (
    "--speculative-config",
    "--enable-lora",
    "--quantization",
    "--hf-overrides",
    "--cpu-offload-gb",
    "--decode-context-parallel-size",
    "--config",
)


def plan_of(request: Request, settings: Mapping[str, object] | None = None) -> MemoryPlan:
    """The plan for a request.

    Args:
        request: of which only the options that a plan has are looked at.
        settings: what an engine made of its arguments, where one was started; it goes before them.

    Raises:
        ConfigError: the formulas do not know the model or one of the options.
    """
    for name in _UNKNOWN:
        if is_given(request.arguments, name):
            raise ConfigError(f"plan has no formula for {name}")
    try:
        config = read_config(request.model)
        return make_plan(config, _settings(request, settings or {}), _gpu(request.machine))
    except (MemacctError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"plan does not know this model: {error}") from error


def spare_bytes(request: Request, *, refused: bool = False) -> int | None:
    """What a plan leaves on each GPU beyond one request; negative where that is missing.

    Args:
        request: what is asked.
        refused: with what is missing of the free memory that the engine asks for, if that is more.

    Returns:
        None where the formulas do not know.
    """
    try:
        plan = plan_of(request)
    except ConfigError:
        return None
    if plan.kv_room is None:
        return None
    spare = plan.kv_room.bytes - plan.kv_needed_bytes
    if refused and plan.gpu is not None and plan.requested_bytes is not None and plan.is_refused:
        return min(spare, plan.gpu.free_bytes - plan.requested_bytes)
    return spare


def _settings(request: Request, told: Mapping[str, object]) -> PlanSettings:
    given = request.arguments

    def count(option: str, setting: str | None = None) -> int | None:
        value = told.get(setting) if setting else None
        return value if isinstance(value, int) else number_of(given, option)

    utilization = told.get("gpu_memory_utilization") or value_of(given, "--gpu-memory-utilization")
    length = count("--max-model-len", "max_model_len")
    eager = told.get("enforce_eager")
    caching = told.get("enable_prefix_caching")
    return PlanSettings(
        max_model_len_tokens=None if length == -1 else length,
        utilization=float(str(utilization or DEFAULT_UTILIZATION)),
        tensor_parallel_size=count("--tensor-parallel-size") or 1,
        pipeline_parallel_size=count("--pipeline-parallel-size") or 1,
        kv_dtype=value_of(given, "--kv-cache-dtype") or "auto",
        dtype=value_of(given, "--dtype") or "auto",
        block_tokens=count("--block-size"),
        max_num_batched_tokens=count("--max-num-batched-tokens", "max_num_batched_tokens"),
        max_num_seqs=count("--max-num-seqs", "max_num_seqs"),
        prefix_caching=(
            caching
            if isinstance(caching, bool)
            else not is_given(given, "--no-enable-prefix-caching")
        ),
        enforce_eager=eager if isinstance(eager, bool) else is_given(given, "--enforce-eager"),
        kv_cache_bytes=count("--kv-cache-memory-bytes"),
    )


def _gpu(machine: Machine) -> Gpu:
    held = sum(map(held_bytes, machine.neighbours_bytes))
    return Gpu(
        title=machine.driver_name,  # batches depend on it
        total_bytes=machine.cuda_total_bytes,
        free_bytes=machine.cuda_total_bytes - held,
        source=machine.title,
    )
