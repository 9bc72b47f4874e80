"""Models and modes of many kinds start on a simulated GPU, their ranks' weights as expected.

Public models by their config.json, cut to a few layers, with the tokenizer and the processor that
a dry run makes; engines from a warm process, so that each takes seconds.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from bench.dryrun.models_cut import write_model

from memacct._units import GIB
from memacct.demo.engine import EngineOptions
from memacct.dry_run.processor import complete

if TYPE_CHECKING:
    from pathlib import Path

    from warm_place import Place

    from memacct.demo import EngineResult
    from memacct.demo.warm import WarmEngines

pytestmark = pytest.mark.engine

BFLOAT16_BYTES = 2
HIDDEN, VOCABULARY = 4096, 128256  # of Llama-3.1-8B
FORKED = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_WORKER_MULTIPROC_METHOD": "fork"}
ENCODER = re.compile(r"budget of (\d+) tokens, and profiled with 1 (\w+) items")


def start(
    warm: WarmEngines, folder: Path, model: str, layers: int = 2, **arguments: Any
) -> EngineResult:
    """Starts a cut of the model, which generates a few tokens too."""
    write_model(folder, model, layers)
    complete(folder, json.loads((folder / "config.json").read_text()))
    environ = arguments.pop("environ", {})
    told = {"model": str(folder), "load_format": "dummy", "max_model_len": 4096}
    told |= {"max_num_seqs": 16, "max_num_batched_tokens": 4096, **arguments}
    options = EngineOptions(budget_bytes=24 * GIB, arguments=told, environ=environ)
    result = warm.start(options, f"models-{folder.name}").finish()
    assert result.served, result.error
    return result


def weights(result: EngineResult) -> list[int]:
    return [worker["weights_bytes"] for worker in result.workers]


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ("Qwen3-30B-A3B", 2),
        ("DeepSeek-V2-Lite-Chat", 2),
        ("gpt-oss-20b", 2),
        ("Nemotron-H-8B-Base-8K", 8),
        ("mamba-130m-hf", 2),
    ],
)
def test_it_starts(warm: WarmEngines, tmp_path: Path, model: str, layers: int) -> None:
    assert start(warm, tmp_path, model, layers).kv_cache_bytes


def test_an_encoder_is_profiled_with_the_models_largest_image(
    warm: WarmEngines, tmp_path: Path
) -> None:
    # 16384 tokens, as vLLM says of the published model.
    result = start(
        warm,
        tmp_path,
        "Qwen2.5-VL-7B-Instruct",
        skip_tokenizer_init=False,
        limit_mm_per_prompt={"video": 0},
    )
    found = ENCODER.search(result.log())
    assert found is not None
    assert (found[1], found[2]) == ("16384", "image")


def test_an_adapters_slots_are_allocated(warm: WarmEngines, tmp_path: Path) -> None:
    plain = start(warm, tmp_path / "plain", "Llama-3.1-8B-Instruct")
    lora = {"enable_lora": True, "max_loras": 2, "max_lora_rank": 16}
    adapted = start(warm, tmp_path / "lora", "Llama-3.1-8B-Instruct", **lora)
    # Rank x (input + output) of each projection; the adapters' slots.
    key_value, inner = 1024, 14336
    projections = 2 * (HIDDEN + HIDDEN) + 2 * (HIDDEN + key_value) + 3 * (HIDDEN + inner)
    expected = 2 * 2 * 16 * projections * BFLOAT16_BYTES
    (more,) = (many - few for many, few in zip(weights(adapted), weights(plain), strict=True))
    assert more == pytest.approx(expected, rel=0.5)


def test_n_grams_are_looked_up(warm: WarmEngines, tmp_path: Path) -> None:
    speculation = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}
    start(warm, tmp_path, "Qwen3-0.6B", speculative_config=speculation)


def test_two_stages_share_the_layers(place: Place, tmp_path: Path) -> None:
    result = start(
        place.engines,
        tmp_path,
        "Llama-3.1-8B-Instruct",
        4,
        pipeline_parallel_size=2,
        environ=FORKED,
    )
    first, second = weights(result)
    # Two layers each; the first has the embeddings, the last the head and a norm.
    assert second - first == HIDDEN * BFLOAT16_BYTES
    assert first > VOCABULARY * HIDDEN * BFLOAT16_BYTES


def test_experts_are_divided_and_attention_too(place: Place, tmp_path: Path) -> None:
    result = start(
        place.engines,
        tmp_path,
        "Qwen3-30B-A3B",
        2,
        tensor_parallel_size=2,
        enable_expert_parallel=True,
        environ=FORKED,
    )
    first, second = weights(result)
    experts = 2 * 64 * 3 * 2048 * 768 * BFLOAT16_BYTES
    assert first == second
    assert first == pytest.approx(experts + 2 * 75968 * 2048 * BFLOAT16_BYTES, rel=0.05)
