"""Plans agree with the engine: KV tokens, concurrency and weights of small models of many kinds.

The engine's weights are random (load_format "dummy"); its arithmetic is its own. What its log says
of its KV cache for the bytes that it found, the plan must say to the printed digit.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from plan_models import MODELS, write_model

from memacct._units import GIB
from memacct.demo.engine import EngineOptions
from memacct.planning import MemoryPlan, PlanSettings, make_plan, read_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from memacct.demo.warm import WarmEngines

pytestmark = pytest.mark.engine

SIZE = re.compile(r"GPU KV cache size: ([\d,]+) tokens.*per request: ([\d.]+)x")
LENGTH, SEQUENCES, BATCH = 8192, 16, 4096
# Profiling compiles Mamba's kernels, in a minute or two the first time: the budget is given.
GIVEN = {"nemotron-h": 3 * GIB, "falcon-h1": 3 * GIB}


class Case(NamedTuple):
    """A model, and what else the engine and the plan are told."""

    model: str
    engine: dict[str, Any]
    plan: dict[str, Any]


CASES = {name: Case(name, {}, {}) for name in MODELS if name not in {"whisper", "qwen3-next"}} | {
    "llama, fp8 cache": Case("llama", {"kv_cache_dtype": "fp8"}, {"kv_dtype": "fp8"}),
    "gemma3, blocks of 32": Case("gemma3", {"block_size": 32}, {"block_tokens": 32}),
    "mistral, short": Case("mistral", {"max_model_len": 777}, {"max_model_len_tokens": 777}),
    "falcon-h1, no prefixes": Case(
        "falcon-h1", {"enable_prefix_caching": False}, {"prefix_caching": False}
    ),
}


def plan_of(folder: Path, kv_cache_bytes: int, **changed: Any) -> MemoryPlan:
    settings = {"max_model_len_tokens": LENGTH, **changed}
    made = PlanSettings(
        max_num_seqs=SEQUENCES,
        max_num_batched_tokens=BATCH,
        kv_cache_bytes=kv_cache_bytes,
        **settings,
    )
    return make_plan(read_config(folder), made)


@pytest.mark.parametrize("name", CASES)
def test_a_plan_is_what_the_engine_logs(
    warm: WarmEngines, tmp_path: Path, name: str, say: Callable[[str], None]
) -> None:
    case = CASES[name]
    folder = write_model(tmp_path, case.model)
    given = GIVEN.get(case.model)
    arguments = {
        "model": str(folder),
        "load_format": "dummy",
        "max_model_len": LENGTH,
        "max_num_seqs": SEQUENCES,
        "max_num_batched_tokens": BATCH,
        **({"kv_cache_memory_bytes": given} if given else {}),
        **case.engine,
    }
    options = EngineOptions(budget_bytes=8 * GIB, arguments=arguments)
    result = warm.start(options, f"plan-{case.model}").finish()
    assert result.served, result.error
    (worker,) = result.workers
    logged = SIZE.search(result.log_path.read_text())
    assert logged is not None
    plan = plan_of(folder, given or worker["available_bytes"], **case.plan)
    assert plan.capacity is not None
    assert plan.capacity.blocks_count == worker["num_gpu_blocks"]
    assert f"{plan.capacity.tokens_count:,}" == logged[1]
    assert f"{plan.capacity.requests_ratio:.2f}" == logged[2]
    say(
        f"{name}: {logged[1]} tokens, {logged[2]}x; weights {worker['weights_bytes']:,}, "
        f"planned {plan.weights.bytes:,}; peak {worker['peak_activation_bytes']}, "
        f"planned {plan.activation.low_bytes} to {plan.activation.high_bytes}"
    )
