"""A dry run is the real engine: each byte of the device once, the engine's own tokens, refusals."""

from __future__ import annotations

import contextlib
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import memacct
from memacct._units import GIB, MIB
from memacct.dry_run.refusals import EngineError

if TYPE_CHECKING:
    from memacct import DryRun
    from memacct.dry_run.result import Rank

pytestmark = pytest.mark.engine

HIDDEN, LAYERS, WIDE, VOCABULARY, KEYS = 1024, 2, 2816, 32000, 256
BFLOAT16_BYTES = 2
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": WIDE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 2,
}
# vLLM's reading around the loading has a little besides: 16 MiB were seen, for two larger layers.
BESIDES = 32 * MIB
# One layer: attention's four matrices, the MLP's three, two norms.
LAYER = HIDDEN * (2 * HIDDEN + 2 * KEYS) + 3 * HIDDEN * WIDE + 2 * HIDDEN


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "Llama-Tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def dry(python: Path, model: Path, options: str = "", **settings: Any) -> DryRun:
    given: dict[str, Any] = {
        "gpu": "total=24GiB",
        "limit_s": 240.0,
        "python": python,
        "cache": False,
    }
    return memacct.dryrun(f"vllm serve {model} {options}", **{**given, **settings})


def check_equations(run: DryRun, rank: Rank) -> None:
    """Each byte of the device is in exactly one row, and no row is less than nothing."""
    for rows in (rank.peak, rank.started):
        amounts = {row.name: row.amount.bytes for row in rows}
        assert sum(amounts.values()) == run.request.machine.total_bytes
        assert min(amounts.values()) >= 0
        assert len(amounts) == len(rows)
    peak = {row.name: row.amount.bytes for row in rank.peak}
    assert rank.activation_peak is not None
    assert peak["activation peak"] == rank.activation_peak.bytes > 0


def check_cache(run: DryRun) -> None:
    """The engine's own arithmetic, from the numbers that the dry run tells."""
    rank = run.ranks[0]
    assert rank.requested_bytes == math.ceil(0.92 * rank.total_bytes)
    assert rank.kv_room_bytes is not None
    assert rank.kv_block_bytes is not None
    assert run.kv_blocks_count == rank.kv_room_bytes // rank.kv_block_bytes
    assert rank.kv_cache is not None
    assert rank.kv_cache.bytes == run.kv_blocks_count * rank.kv_block_bytes
    assert run.kv_tokens is not None
    assert run.concurrency is not None
    assert run.kv_request_blocks_count is not None
    assert run.concurrency.value == run.kv_blocks_count / run.kv_request_blocks_count
    assert run.kv_tokens.low <= run.kv_tokens.value <= run.kv_tokens.high


def test_each_byte_once_and_the_tokens_of_the_engines_own_log(
    gpu_python: Path, model: Path, tmp_path: Path
) -> None:
    log = tmp_path / "engine.log"
    run = dry(gpu_python, model, "--cudagraph-capture-sizes 1 2 4", log=log)
    assert run.verdict == "starts"
    rank = run.ranks[0]
    check_equations(run, rank)
    check_cache(run)
    assert {row.name: row.amount.bytes for row in rank.started}["CUDA graphs"] > 0
    assert rank.graphs_estimated is not None
    matrices = LAYERS * LAYER + 2 * VOCABULARY * HIDDEN + HIDDEN
    assert rank.weights is not None
    # The rotary table is a tensor of the model too: 4096 positions of 64 numbers.
    rotary = 4096 * 64 * BFLOAT16_BYTES
    assert 0 <= rank.weights.bytes - (matrices * BFLOAT16_BYTES + rotary) <= BESIDES
    said = re.search(r"GPU KV cache size: ([0-9,]+) tokens", log.read_text())
    assert said is not None
    assert run.kv_tokens is not None
    assert run.kv_tokens.value == int(said[1].replace(",", ""))
    # Batch defaults are those of the server on a card of that size, not of a class in a program.
    assert (run.settings["max_num_batched_tokens"], run.settings["max_num_seqs"]) == (2048, 256)
    assert run.host is not None
    assert 0 < run.host.held.bytes < 3 * GIB
    assert run.versions["vllm"] == "0.33.0"
    begins = [phase.begin_s for phase in run.timeline]
    assert begins == sorted(begins)
    assert {"import", "config", "load", "profile", "capture graphs"} <= {
        phase.name for phase in run.timeline
    }


def test_two_ranks_beside_a_neighbour(gpu_python: Path, model: Path) -> None:
    options = "-tp 2 --enforce-eager --gpu-memory-utilization 0.5"
    run = dry(gpu_python, model, options, count=2, neighbours_bytes=[3 * GIB])
    assert run.verdict == "starts"
    assert [(rank.rank, rank.device) for rank in run.ranks] == [(0, 0), (1, 1)]
    for rank in run.ranks:
        check_equations(run, rank)
        rows = {row.name: row.amount.bytes for row in rank.started}
        assert rows["neighbours"] == 3 * GIB
        assert rank.weights is not None
        matrices = LAYERS * (LAYER - 2 * HIDDEN) + 2 * VOCABULARY * HIDDEN
        assert 0 <= rank.weights.bytes - matrices // 2 * BFLOAT16_BYTES <= BESIDES
    assert run.host is not None
    assert run.host.processes_count == 4  # the server, the core, two workers


def test_a_card_that_shares_the_hosts_memory_is_not_as_large_as_this_host(
    gpu_python: Path, model: Path
) -> None:
    run = dry(gpu_python, model, "--enforce-eager", gpu="gb10")
    assert run.verdict == "starts"
    rank = run.ranks[0]
    check_equations(run, rank)
    check_cache(run)
    # vLLM asks the host there, which is to be the DGX Spark: less what this engine holds of it.
    assert rank.free_at_start_bytes is not None
    assert 0 < rank.total_bytes - rank.free_at_start_bytes < 4 * GIB
    assert any("shares the host's memory" in note for note in run.notes)


def test_a_card_that_pytorch_has_no_code_for_is_one_sentence(gpu_python: Path, model: Path) -> None:
    told = r"PyTorch 2\.14\.0 has no code for this card's compute capability"
    with pytest.raises(memacct.ConfigError, match=told):
        dry(gpu_python, model, "--enforce-eager --dtype half", gpu="v100-32")


def test_a_start_that_is_refused_is_an_answer_with_numbers(gpu_python: Path, model: Path) -> None:
    run = dry(gpu_python, model, "--enforce-eager", neighbours_bytes=[8 * GIB])
    assert run.verdict == "does not fit"
    assert run.refusal is not None
    assert run.refusal.kind == "free below requested"
    rank = run.ranks[0]
    assert rank.requested_bytes == math.ceil(0.92 * rank.total_bytes)
    assert rank.free_at_start_bytes is not None
    assert rank.free_at_start_bytes < rank.total_bytes - 8 * GIB
    assert run.refusal.missing is not None
    assert run.refusal.missing.bytes == rank.requested_bytes - rank.free_at_start_bytes
    assert run.kv_tokens is None


def test_what_the_engine_refuses_is_one_sentence(gpu_python: Path, model: Path) -> None:
    with pytest.raises(memacct.ConfigError, match="unrecognized arguments: --enforce-eagr") as told:
        dry(gpu_python, model, "--enforce-eagr")
    assert "\n" not in str(told.value)


def test_a_start_that_takes_too_long_is_ended_and_its_log_kept(
    gpu_python: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(EngineError, match="did not start within") as told:
        dry(gpu_python, model, limit_s=1.0)
    text = str(told.value)
    assert "\n" not in text
    log = Path(text.rpartition("log: ")[2])
    assert log.exists()
    folder = str(log.parent).encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is another's
            assert folder not in environ.read_bytes()
