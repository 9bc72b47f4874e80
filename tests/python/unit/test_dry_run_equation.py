"""Each byte of a device in one row, from readings as a worker writes them; kinds of refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dry_runs import a_request
from hypothesis import given
from hypothesis import strategies as st

from memacct import ConfigError
from memacct._units import GIB, MIB
from memacct.dry_run import equation
from memacct.dry_run.engine_process import Outcome
from memacct.dry_run.refusals import EngineError, refusal
from memacct.dry_run.result import Amount, Rank, Refusal
from memacct.dry_run.shortfall import with_planned_weights

OWN, NEIGHBOUR, SIBLING = 10, 20, 30
KNOWN = equation.Known(
    uuid="GPU-a", pid=OWN, context_bytes=400 * MIB, neighbours=frozenset({NEIGHBOUR})
)
SIZES = st.integers(0, 2**36)


def reading(
    own: int, neighbour: int = 0, sibling: int = 0, free: int = 0, **torch: int
) -> dict[str, Any]:
    """One device; `own` is what the worker holds of it, PyTorch's memory in it."""
    held = {OWN: own, NEIGHBOUR: neighbour, SIBLING: sibling}
    processes = [{"pid": pid, "process_used_bytes": size} for pid, size in held.items()]
    device = {
        "uuid": "GPU-a",
        "reserved_bytes": 500 * MIB,
        "unattributed_bytes": 3 * MIB,
        "free_bytes": free,
        "processes": processes,
    }
    return {"machine": {"devices": [device]}, **torch}


def total(of: dict[str, Any]) -> int:
    device = of["machine"]["devices"][0]
    held: int = sum(each["process_used_bytes"] for each in device["processes"])
    rest = ("reserved_bytes", "unattributed_bytes", "free_bytes")
    return held + sum(int(device[name]) for name in rest)


@given(SIZES, SIZES, SIZES, SIZES, SIZES, st.tuples(SIZES, SIZES, SIZES).map(sorted), SIZES, SIZES)
def test_the_peak_adds_up(  # noqa: PLR0917 (sizes)
    outside: int,
    neighbour: int,
    sibling: int,
    free: int,
    weights: int,
    torch: list[int],
    cached: int,
    given_back: int,
) -> None:
    held, now, peak = torch
    highest = peak + cached
    reserved = max(highest - given_back, now)
    after = reading(
        reserved + outside,
        neighbour,
        sibling,
        free + highest,
        allocated_bytes=now,
        allocated_peak_bytes=peak,
        reserved_bytes=reserved,
        reserved_peak_bytes=highest,
    )
    rows = equation.peak_rows({"allocated_bytes": held}, after, weights, KNOWN)
    assert rows is not None
    assert sum(rows.values()) == total(after)
    assert min(rows.values()) >= 0
    assert rows.get(equation.ACTIVATION, 0) == peak - held
    assert rows[equation.WEIGHTS] == min(weights, held)
    assert rows.get(equation.NEIGHBOURS, 0) == neighbour
    assert rows.get(equation.SIBLINGS, 0) == sibling


def test_after_the_start_graphs_are_their_pools_and_what_the_driver_took() -> None:
    pools = {"reserved_bytes": 0, "allocated_bytes": 0}
    before = reading(7 * GIB, reserved_bytes=6 * GIB) | {"pools": pools}
    pools = {"reserved_bytes": 20 * MIB, "allocated_bytes": 15 * MIB}
    captured = reading(7 * GIB + 50 * MIB, reserved_bytes=6 * GIB + 20 * MIB) | {"pools": pools}
    started = reading(
        7 * GIB + 50 * MIB,
        free=GIB,
        reserved_bytes=6 * GIB + 20 * MIB,
        allocated_bytes=5 * GIB + 15 * MIB,
    )
    moments = {"before capture": before, "captured": captured, "started": started}
    rows = equation.started_rows(moments, 2 * GIB, 3 * GIB - MIB, KNOWN)
    assert rows is not None
    assert rows[equation.GRAPHS] == 20 * MIB + 30 * MIB
    assert rows[equation.WEIGHTS] == 2 * GIB
    assert rows[equation.KV_CACHE] == 3 * GIB - MIB
    assert rows[equation.OTHER_TENSORS] == MIB
    assert rows[equation.CACHED] == GIB
    assert rows[equation.CONTEXT] == 400 * MIB
    assert rows[equation.NON_TORCH] == GIB - 400 * MIB
    assert sum(rows.values()) == total(started)


def test_a_device_that_nobody_told_has_no_equation() -> None:
    blind: dict[str, Any] = {"machine": None, "reserved_bytes": 0, "allocated_bytes": 0}
    assert equation.peak_rows(blind, blind, 0, KNOWN) is None
    assert equation.started_rows({"started": blind}, 0, 0, KNOWN) is None


# ---------------------------------------------------------------- refusals


def outcome(files: dict[str, Any], log: Path = Path("/none"), **changed: Any) -> Outcome:
    values = {"timed_out": False, "exit_status": 1, "samples": (), "begin_s": 0.0, "wall_s": 9.0}
    return Outcome(files=files, log_path=log, **{**values, **changed})


def worker(where: str, kind: str, message: str, **error: Any) -> dict[str, Any]:
    start = {"free_memory": 10 * GIB, "total_memory": 20 * GIB}
    said = {"where": where, "type": kind, "message": message, **error}
    failed = {"main": {"outcome": "failed", "error": {**said, "where": "engine"}}}
    file = {"start": start, "requested_bytes": 18 * GIB, "error": said, "moments": {}}
    return {**failed, "worker-0": file}


def test_a_start_needs_no_refusal() -> None:
    assert refusal(outcome({"main": {"outcome": "started"}})) is None


def test_less_is_free_than_asked_for() -> None:
    message = "Free memory on device cuda:0 (10.0/20.0 GiB) on startup is less than desired"
    found = refusal(outcome(worker("init_device", "ValueError", message)))
    assert found is not None
    assert found.kind == "free below requested"
    assert found.missing is not None
    assert found.missing.bytes == 8 * GIB
    assert found.suggestions[0].startswith("--gpu-memory-utilization 0.50 ")


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("load_model", "weights"),
        ("determine_available_memory", "activation"),
        ("profile_cudagraph_memory", "graphs"),
        ("initialize_from_config", "no room for KV cache"),
        ("capture_model", "graphs"),
        ("_initialize_kv_caches", "activation"),
    ],
)
def test_out_of_memory_by_where_it_was(where: str, kind: str) -> None:
    last = {"asked_bytes": 3 * GIB, "free_bytes": GIB}
    message = "CUDA out of memory. Tried to allocate 3.00 GiB.\nmore"
    found = refusal(outcome(worker(where, "OutOfMemoryError", message, out_of_memory=last)))
    assert found is not None
    assert (found.kind, found.message) == (kind, "CUDA out of memory. Tried to allocate 3.00 GiB.")
    assert found.missing is not None
    assert found.missing.bytes == 2 * GIB
    assert "at least" in found.missing.source


@pytest.mark.parametrize(
    ("available", "kind"),
    [(-GIB, "no room for KV cache"), (GIB, "KV cache below one request")],
)
def test_a_cache_that_does_not_fit(available: int, kind: str) -> None:
    files = worker("x", "x", "x")
    del files["worker-0"]["error"]
    study = {
        "available_bytes": [available],
        "needed_bytes": 2 * GIB,
        "max_model_len": 1000,
        "fitting_max_model_len": 500 if available > 0 else 0,
    }
    error = {
        "where": "y",
        "type": "ValueError",
        "message": "To serve at least one request",
        **study,
    }
    found = refusal(outcome({**files, "core-0": {"error": error}}))
    assert found is not None
    assert found.kind == kind
    assert found.missing is not None
    assert found.missing.bytes == 2 * GIB - available
    lengths = [each for each in found.suggestions if each.startswith("--max-model-len 500 ")]
    assert len(lengths) == (1 if available > 0 else 0)


def test_what_is_not_about_memory_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    def failed(where: str, kind: str, message: str) -> Outcome:
        error = {"where": where, "type": kind, "message": message}
        return outcome({"main": {"outcome": "failed", "error": error}})

    with pytest.raises(ConfigError, match="refuses its options: unrecognized arguments: --x"):
        refusal(failed("arguments", "ArgumentsError", "unrecognized arguments: --x"))
    message = (
        "1 validation error for ModelConfig\n  Value error, Model architectures ['X'] are not "
        "supported for now. [type=value_error, input_value=1]\n    For further information"
    )
    with pytest.raises(
        ConfigError, match=r"Model architectures \['X'\] are not supported for now$"
    ):
        refusal(failed("config", "ValidationError", message))
    with pytest.raises(EngineError, match="KeyError: 'x'; its log: /none"):
        refusal(failed("engine", "KeyError", "'x'"))
    log = tmp_path / "engine.log"
    log.write_text("one\nthe last word\n\n")
    phases = [{"name": "import", "begin_s": 1.0, "end_s": 2.0}]
    phases.append({"name": "load", "begin_s": 2.0, "end_s": None})
    gone = outcome({"main": {"phases": phases}}, log, exit_status=-9)
    with pytest.raises(EngineError, match="signal 9 .* at: load; its last line: the last word"):
        refusal(gone)
    hangs = outcome({"main": {"phases": phases}}, log, timed_out=True)
    with pytest.raises(EngineError, match="did not start within 9 s; it was at: load"):
        refusal(hangs)


def test_weights_that_do_not_fit_lack_more_than_the_first_allocation(tmp_path: Path) -> None:
    hidden, wide, vocabulary = 4096, 14336, 128256
    values = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden}
    values |= {"intermediate_size": wide, "num_hidden_layers": 32, "num_attention_heads": 32}
    values |= {"num_key_value_heads": 8, "vocab_size": vocabulary, "torch_dtype": "bfloat16"}
    values |= {"max_position_embeddings": 8192, "tie_word_embeddings": False}
    config = tmp_path / "config.json"
    config.write_text(json.dumps(values))
    layer = hidden * (2 * hidden + 2 * 1024) + 3 * hidden * wide + 2 * hidden
    rotary = 8192 * 128  # a table of as many positions
    weights = 2 * (32 * layer + 2 * vocabulary * hidden + hidden + rotary)
    rank = Rank(rank=0, device=0, total_bytes=8 * GIB, free_at_start_bytes=7 * GIB)
    least = Amount(bytes=MIB, low_bytes=MIB, high_bytes=MIB, source="at least")
    refused = Refusal(kind="weights", message="CUDA out of memory.", missing=least)
    found = with_planned_weights(refused, a_request(model=config), (rank,), {})
    assert found.missing is not None
    assert found.missing.bytes == weights - 7 * GIB
    assert found.missing.low_bytes <= found.missing.bytes <= found.missing.high_bytes
    activation = replace(refused, kind="activation")
    assert with_planned_weights(activation, a_request(model=config), (rank,), {}) == activation
    unknown = a_request("--quantization", "fp8", model=config)
    assert with_planned_weights(refused, unknown, (rank,), {}) == refused
