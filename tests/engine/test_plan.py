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
    from pathlib import Path

    from memacct.demo.engine import EngineResult
    from memacct.demo.warm import WarmEngines

pytestmark = pytest.mark.engine

SIZE = re.compile(r"GPU KV cache size: ([\d,]+) tokens.*per request: ([\d.]+)x")
LENGTH, SEQUENCES, BATCH = 8192, 16, 4096
# Profiling compiles Mamba's kernels, in a minute or two the first time,
# and profiling of images runs kernels whose results a simulated GPU does not have.
GIVEN = {"qwen2-vl": 3 * GIB, "nemotron-h": 3 * GIB, "falcon-h1": 3 * GIB}


class Case(NamedTuple):
    """A model, and what else the engine and the plan are told."""

    model: str
    engine: dict[str, Any]
    plan: dict[str, Any]


CASES = {name: Case(name, {}, {}) for name in MODELS if name not in {"qwen2-vl", "qwen3-next"}} | {
    "qwen2-vl": Case(
        "qwen2-vl",
        {"skip_tokenizer_init": False, "limit_mm_per_prompt": {"image": 1, "video": 0}},
        {},
    ),
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


def start(warm: WarmEngines, name: str, given: int | None, **arguments: Any) -> EngineResult:
    """Starts an engine with the tests' batch; it has found, or was given, bytes for its cache."""
    told = {
        "max_model_len": LENGTH,
        "max_num_seqs": SEQUENCES,
        "max_num_batched_tokens": BATCH,
        **({"kv_cache_memory_bytes": given} if given else {}),
        **arguments,
    }
    result = warm.start(EngineOptions(budget_bytes=8 * GIB, arguments=told), name).finish()
    assert result.served, result.error
    return result


def assert_agrees(plan: MemoryPlan, result: EngineResult) -> None:
    """Tokens and concurrency to the digit, weights to 0.5 %."""
    (worker,) = result.workers
    logged = SIZE.search(result.log_path.read_text())
    assert logged is not None
    assert plan.capacity is not None
    assert plan.capacity.blocks_count == worker["num_gpu_blocks"]
    assert f"{plan.capacity.tokens_count:,}" == logged[1]
    assert f"{plan.capacity.requests_ratio:.2f}" == logged[2]
    if plan.config.text is plan.config.raw:
        assert plan.weights.bytes == pytest.approx(worker["weights_bytes"], rel=0.005)
    else:  # a tower for images has no formula: not known, rather than too little
        assert plan.weights.bytes is None
    if worker["peak_activation_bytes"] is not None:
        low, high = plan.activation.low_bytes, plan.activation.high_bytes
        assert low <= worker["peak_activation_bytes"] <= high


@pytest.mark.parametrize("name", CASES)
def test_a_plan_is_what_the_engine_logs(warm: WarmEngines, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    folder = write_model(tmp_path, case.model)
    given = GIVEN.get(case.model)
    engine = {"model": str(folder), "load_format": "dummy", **case.engine}
    result = start(warm, f"plan-{case.model}", given, **engine)
    room = given or result.workers[0]["available_bytes"]
    assert_agrees(plan_of(folder, room, **case.plan), result)


def test_files_are_read_as_the_engine_loads_them(warm: WarmEngines) -> None:
    result = start(warm, "plan-files", None, max_model_len=2048)
    room = result.workers[0]["available_bytes"]
    plan = plan_of(warm.bench.model, room, max_model_len_tokens=2048)
    assert plan.weights.source == "the headers of its safetensors files"
    assert_agrees(plan, result)
