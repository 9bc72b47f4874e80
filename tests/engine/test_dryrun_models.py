"""Models and modes of many kinds start on a simulated GPU, their ranks' weights as expected.

Public models by their config.json alone, cut to a few layers; bench/dryrun/models_start.py starts
many more. What an engine does alone is started from a warm process, in seconds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from bench.dryrun.models_cut import write_model

import memacct
from memacct._units import GIB, MIB
from memacct.demo.engine import EngineOptions

if TYPE_CHECKING:
    from pathlib import Path

    from memacct.demo import EngineResult
    from memacct.demo.warm import WarmEngines
    from memacct.dry_run.result import DryRun

pytestmark = pytest.mark.engine

LENGTH = 4096
BFLOAT16_BYTES = 2
LLAMA = "Llama-3.1-8B-Instruct"
HIDDEN, INNER, KEYS, VOCABULARY = 4096, 14336, 1024, 128256  # of it
LAYER_BYTES = BFLOAT16_BYTES * (2 * HIDDEN * (HIDDEN + KEYS) + 3 * HIDDEN * INNER + 2 * HIDDEN)
EMBEDDINGS_BYTES = BFLOAT16_BYTES * HIDDEN * VOCABULARY
# Tables of rotary positions, and rounding to PyTorch's blocks.
SMALL_BYTES = 80 * MIB


def start(
    warm: WarmEngines, folder: Path, model: str, layers: int = 2, **arguments: Any
) -> EngineResult:
    """Starts a cut of the model, which generates a few tokens too."""
    told: dict[str, Any] = {"model": str(write_model(folder, model, layers))}
    told |= {"load_format": "dummy", "max_model_len": LENGTH, "max_num_seqs": 16}
    options = EngineOptions(budget_bytes=24 * GIB, arguments=told | arguments)
    result = warm.start(options, f"models-{folder.name}").finish()
    assert result.served, result.error
    return result


def dryrun(
    folder: Path,
    python: Path,
    model: str,
    *options: str,
    layers: int = 2,
    count: int = 1,
    log: Path | None = None,
) -> DryRun:
    """A dry run of a cut of the model, eager, on a small H100."""
    command = ["vllm", "serve", str(write_model(folder / model, model, layers))]
    command += ["--enforce-eager", "--max-model-len", str(LENGTH), *options]
    told: dict[str, Any] = {"gpu": "h100", "count": count, "python": python, "log": log}
    answer = memacct.dryrun(command, **told, cache=False)
    assert answer.verdict == "starts", answer.refusal
    assert answer.kv_tokens is not None
    return answer


def weights(answer: DryRun) -> list[int]:
    """Of each rank, in bytes."""
    found = [rank.weights for rank in answer.ranks]
    return [amount.bytes for amount in found if amount is not None]


@pytest.mark.parametrize("model", ["Qwen3-30B-A3B", "DeepSeek-V2-Lite-Chat", "mamba-130m-hf"])
def test_experts_latent_attention_and_states_start(
    warm: WarmEngines, tmp_path: Path, model: str
) -> None:
    # Two layers of DeepSeek-V2: the dense one and one of experts.
    assert start(warm, tmp_path, model).kv_cache_bytes


def test_n_grams_are_looked_up(gpu_python: Path, tmp_path: Path) -> None:
    # A start only: what was accepted of a guess is counted by a kernel, which does nothing here.
    speculation = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}
    options = ("--speculative-config", json.dumps(speculation))
    dryrun(tmp_path, gpu_python, "Qwen3-0.6B", *options, log=tmp_path / "log")
    assert "SpeculativeConfig(method='ngram'" in (tmp_path / "log").read_text()


def test_images_are_profiled_with_a_processor_that_is_made(
    gpu_python: Path, tmp_path: Path
) -> None:
    # LLaVA's tower is 24 layers of CLIP, whose convolution is cuDNN's; the text is cut.
    answer = dryrun(tmp_path, gpu_python, "llava-1.5-7b-hf")
    (of_all,) = weights(answer)
    assert any("settings of llava-hf" in note for note in answer.notes)
    # Llama-7B's layers and embeddings; CLIP's 303,507,456 parameters; the projector's two layers.
    layer = 4 * 4096 * 4096 + 3 * 4096 * 11008 + 2 * 4096
    projector = 1024 * 4096 + 4096 + 4096 * 4096 + 4096
    parameters = 2 * layer + 2 * 32064 * 4096 + 4096 + 303_507_456 + projector
    assert of_all == pytest.approx(parameters * 2, rel=0.03)


def test_an_adapters_slots_are_among_the_weights(gpu_python: Path, tmp_path: Path) -> None:
    rank, slots, layers = 64, 4, 2
    options = ("--enable-lora", "--max-loras", str(slots), "--max-lora-rank", str(rank))
    (of_all,) = weights(dryrun(tmp_path, gpu_python, LLAMA, *options, layers=layers))
    # Two matrices each: q and o, k and v, gate, up and down; the embeddings and the head.
    sizes = 2 * (HIDDEN + HIDDEN) + 2 * (HIDDEN + KEYS) + 3 * (HIDDEN + INNER)
    adapters = BFLOAT16_BYTES * slots * rank * (layers * sizes + 2 * (HIDDEN + VOCABULARY))
    model = layers * LAYER_BYTES + 2 * EMBEDDINGS_BYTES
    assert adapters > SMALL_BYTES
    assert 0 <= of_all - model - adapters < SMALL_BYTES


def test_two_stages_share_the_layers(gpu_python: Path, tmp_path: Path) -> None:
    options = ("--pipeline-parallel-size", "2")
    answer = dryrun(tmp_path, gpu_python, LLAMA, *options, layers=4, count=2)
    first, second = weights(answer)
    # The embeddings are the first's, the head and the last norm the second's.
    assert 0 <= first - 2 * LAYER_BYTES - EMBEDDINGS_BYTES < SMALL_BYTES
    assert second - first == pytest.approx(BFLOAT16_BYTES * HIDDEN, abs=MIB)


def test_each_replica_has_the_whole_model(gpu_python: Path, tmp_path: Path) -> None:
    answer = dryrun(tmp_path, gpu_python, LLAMA, "--data-parallel-size", "2", count=2)
    first, second = weights(answer)
    assert first == pytest.approx(second, abs=MIB)
    assert 0 <= first - 2 * LAYER_BYTES - 2 * EMBEDDINGS_BYTES < SMALL_BYTES
    assert {rank.device for rank in answer.ranks} == {0, 1}


def test_four_bits_without_files_are_four_bits(gpu_python: Path, tmp_path: Path) -> None:
    """vLLM looks into the files for what GPTQ has quantised; there are none."""
    (of_all,) = weights(dryrun(tmp_path, gpu_python, "Qwen2.5-7B-Instruct-GPTQ-Int4"))
    hidden, inner, keys, vocabulary = 3584, 18944, 512, 152064
    matrices = 2 * (2 * hidden * (hidden + keys) + 3 * hidden * inner)
    # 4 bits each, and one scale of 16 bits for 128 of them.
    quantised = matrices * (4 + 16 / 128) / 8
    embeddings = 2 * BFLOAT16_BYTES * hidden * vocabulary
    assert 0 <= of_all - quantised - embeddings < SMALL_BYTES
