"""The plan beside a run: terms within their ranges, those that are not with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from analytic_engine import AnalyticEngine, amount
from dry_runs import a_machine, a_request

from memacct._units import GIB, MIB
from memacct.dry_run.planned import plan_of
from memacct.dry_run.text_search import versus_text
from memacct.dry_run.versus_plan import VersusPlan, versus_plan

if TYPE_CHECKING:
    from pathlib import Path

    from memacct.dry_run.request import Request

# Llama-3.1-8B's layers, two of them.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 2,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
# As vLLM 0.33.0 had it on a simulated GPU of 8 GiB at 0.7: eager, the server's defaults.
WEIGHTS, ROOM, REQUESTED, ACTIVATION = 3_024_138_752, 2_453_233_788, 6_012_954_215, 270 * MIB
BLOCK, TOKENS = 131_072, 299_456


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return a_request("--gpu-memory-utilization", "0.7", "--enforce-eager", model=tmp_path)


def logged(request: Request, **changed: object) -> VersusPlan:
    """What that engine logged, with one term changed."""
    run = AnalyticEngine()(request)
    terms = {
        "weights": amount(WEIGHTS),
        "activation_peak": amount(ACTIVATION),
        "graphs_estimated": None,
        "requested_bytes": REQUESTED,
        "kv_room_bytes": ROOM,
        "kv_block_bytes": BLOCK,
    }
    rank = replace(run.ranks[0], **{**terms, **changed})  # type: ignore[arg-type]
    settings = {"max_model_len": 131_072, "max_num_seqs": 256, "max_num_batched_tokens": 2048}
    assert run.kv_tokens is not None or run.refusal is not None
    return versus_plan(
        replace(
            run,
            verdict="starts",
            refusal=None,
            ranks=(rank,),
            settings={**settings, "enforce_eager": True, "gpu_memory_utilization": 0.7},
            kv_tokens=None,
        )
    )


def test_an_engines_own_figures_are_within_the_ranges(request_: Request) -> None:
    versus = logged(request_)
    assert [each.name for each in versus.terms if not each.agrees] == []
    assert versus.tokens_of_room == TOKENS, "18,716 blocks of 16 tokens, as the engine made of it"
    assert versus.agrees
    assert versus_text(versus).startswith("memacct plan agrees: every term is within its range")


def test_a_term_outside_its_range_is_told_with_its_reason(request_: Request) -> None:
    versus = logged(request_, activation_peak=amount(3 * GIB), kv_room_bytes=ROOM - GIB)
    assert not versus.agrees
    text = versus_text(versus)
    assert "activation peak" in text
    assert "more than planned from 2,048 tokens through the widest layer" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_what_has_no_formula_is_said(request_: Request) -> None:
    option = ("--speculative-config", '{"method": "ngram"}')
    changed = replace(request_, arguments=(*request_.arguments, *option))
    versus = logged(changed)
    assert versus.unknown == "plan has no formula for --speculative-config"
    assert "nothing to set beside it: plan has no formula" in versus_text(versus)
    (request_.model / "config.json").write_text('{"model_type": "unheard-of"}')
    assert "plan does not know this model" in (logged(request_).unknown or "")


def test_a_refusal_before_anything_is_measured(request_: Request) -> None:
    """An engine that finds too little free has no terms; whether plan says so too is told."""
    machine = a_machine(neighbours_bytes=(5 * GIB,))
    run = AnalyticEngine()(replace(request_, machine=machine))
    empty = replace(run.ranks[0], kv_room_bytes=None, weights=None)
    versus = versus_plan(replace(run, ranks=(empty,)))
    assert (versus.terms, versus.fits, versus.starts, versus.differs) == ((), False, False, None)
    assert versus_text(versus).startswith("memacct plan says the same: it does not fit")
    run = AnalyticEngine()(replace(request_, arguments=("--gpu-memory-utilization", "0.97")))
    versus = versus_plan(replace(run, ranks=(empty,)))
    assert not versus.agrees
    assert "CUDA context" in versus_text(versus)


def test_the_settings_of_the_engine_go_before_the_options(request_: Request) -> None:
    assert plan_of(request_).max_num_seqs == 256
    assert plan_of(request_, {"max_num_seqs": 8}).max_num_seqs == 8
    assert plan_of(request_, {"max_model_len": 99}).serving.max_model_len_tokens == 99
    assert plan_of(request_, {"enforce_eager": False}).graphs.bytes > 0
