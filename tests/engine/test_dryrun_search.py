"""Searches and reckonings held to the real engine: two layers, eager, on a simulated GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from memacct._units import GIB, MIB
from memacct.demo.setup import engine_python
from memacct.dry_run.arguments import with_option
from memacct.dry_run.dryrun import make_answers
from memacct.dry_run.fit import fit, goal_for
from memacct.dry_run.interpolate import interpolate
from memacct.dry_run.machine import machine
from memacct.dry_run.neighbours import PAGE_BYTES
from memacct.dry_run.request import Request
from memacct.dry_run.versus_plan import versus_plan

if TYPE_CHECKING:
    from memacct.dry_run.answers import Answers
    from memacct.dry_run.result import DryRun

pytestmark = pytest.mark.engine

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 1 << 18,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
# Half of it, so that the context and a neighbour have room beside.
HALF = ("--enforce-eager", "--gpu-memory-utilization", "0.5")
SMALL = (*HALF, "--max-num-seqs", "8", "--max-num-batched-tokens", "2048")
TOTAL, NEIGHBOUR_BYTES = "total=3GiB", 256 * MIB


@pytest.fixture(scope="module")
def answers() -> Answers:
    """Engines of this module's tests, each started once."""
    return make_answers(cache=False)


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    folder = tmp_path_factory.mktemp("search") / "two-layers"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return Request(model=folder, arguments=SMALL, machine=machine(TOTAL), python=engine_python())


def changed(request: Request, **options: object) -> Request:
    arguments = request.arguments
    for name, value in options.items():
        arguments = with_option(arguments, "--" + name.replace("_", "-"), value)
    return replace(request, arguments=arguments)


def told(run: DryRun) -> tuple[object, ...]:
    """What must be the same, to the byte, of a run and of what is reckoned in its place."""
    (rank,) = run.ranks
    numbers = (rank.requested_bytes, rank.free_at_start_bytes, rank.kv_room_bytes)
    tokens = run.kv_tokens and run.kv_tokens.value
    return run.verdict, tokens, run.kv_blocks_count, numbers, rank.kv_cache and rank.kv_cache.bytes


def rows(run: DryRun) -> list[dict[str, int]]:
    """The equations, at the peak and after the start."""
    (rank,) = run.ranks
    return [{row.name: row.amount.bytes for row in each} for each in (rank.peak, rank.started)]


def test_the_smallest_utilization_as_reckoned_from_another(
    answers: Answers, request_: Request
) -> None:
    """One run beside a neighbour tells all utilizations; that of the answer is then run as well."""
    crowded = replace(machine(TOTAL), neighbours_bytes=(NEIGHBOUR_BYTES,))
    asked = replace(changed(request_, max_model_len=8192), machine=crowded)
    first = answers(asked)
    found = fit(goal_for("utilization", asked, answers, machine), answers)
    assert found.starts_count == 1
    assert found.run is not None
    assert found.run.origin == "run"
    reckoned = interpolate(found.run.request, [first])
    assert reckoned is not None
    assert told(reckoned) == told(found.run)
    for mine, theirs in zip(rows(reckoned), rows(found.run), strict=True):
        assert mine == pytest.approx(theirs, abs=2 * PAGE_BYTES)
    # Less free, the same measured: the run with a neighbour tells of one without.
    alone = interpolate(replace(found.run.request, machine=machine(TOTAL)), [found.run])
    assert alone is not None
    assert alone.kv_tokens is not None
    assert found.run.kv_tokens is not None
    assert alone.kv_tokens.value == found.run.kv_tokens.value
    _, started = rows(found.run)
    assert started["neighbours"] == NEIGHBOUR_BYTES
    assert sum(started.values()) == 3 * GIB
    versus = versus_plan(first)
    assert versus.tokens_of_room == versus.run_tokens, "plan counts the engine's blocks"
    assert versus.agrees, [term for term in versus.terms if not term.agrees]


def test_the_longest_requests_start_and_one_token_more_does_not(
    answers: Answers, request_: Request
) -> None:
    found = fit(goal_for("max-model-len", request_, answers, machine), answers)
    assert found.value is not None
    assert found.starts_count <= 3
    assert found.run is not None
    assert found.run.verdict == "starts"
    more = answers(changed(request_, max_model_len=int(found.value) + 1))
    assert (more.origin, more.verdict) == ("run", "does not fit")
    assert more.refusal is not None
    assert more.refusal.kind == "KV cache below one request"
