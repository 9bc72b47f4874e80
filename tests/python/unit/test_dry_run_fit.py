"""Fits and comparisons with an engine of arithmetic: right answers, by how many starts."""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from analytic_engine import AnalyticEngine
from dry_runs import a_machine, a_request

from memacct._errors import ConfigError, MemacctError
from memacct._units import GIB, MIB
from memacct.dry_run import compare as comparing
from memacct.dry_run.answers import Answers
from memacct.dry_run.compare import at_once, compare, parse_names
from memacct.dry_run.fit import Fit, FitTry, _on_a_line, fit
from memacct.dry_run.goals import GOALS, make_goal
from memacct.dry_run.machine import machine
from memacct.dry_run.refusals import OptionsError
from memacct.dry_run.search import Try
from memacct.dry_run.text_search import compare_text, fit_text, try_line

if TYPE_CHECKING:
    from memacct.dry_run.request import Request
    from memacct.dry_run.result import DryRun

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
TOKEN_BYTES = 32 << 10  # of that model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


@pytest.fixture
def engine() -> AnalyticEngine:
    return AnalyticEngine(token_bytes=TOKEN_BYTES)


def asked(model: Path, *arguments: str, total: int = 8 * GIB) -> Request:
    made = a_machine(gpu="total=8GiB", total_bytes=total, cuda_total_bytes=total)
    return a_request(*arguments, model=model, python=Path(sys.executable), machine=made)


def fitted(name: str, request: Request, engine: AnalyticEngine, limit: int | None = None) -> Fit:
    return fit(make_goal(name, request, machine, limit), Answers(run=engine))


def verdict(engine: AnalyticEngine, request: Request) -> str:
    return replace(engine, requests=[])(request).verdict


def test_the_longest_requests_take_two_starts(engine: AnalyticEngine, model: Path) -> None:
    found = fitted("max-model-len", asked(model), engine)
    assert found.value is not None
    length = int(found.value)
    assert verdict(engine, asked(model, "--max-model-len", str(length))) == "starts"
    assert verdict(engine, asked(model, "--max-model-len", str(length + 1))) == "does not fit"
    assert found.starts_count == len(engine.requests) <= 2
    assert "blocks" in found.beyond


def test_without_the_proof_one_more(
    engine: AnalyticEngine, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older engines need a block less at the same length: then the next one is tried."""
    monkeypatch.setattr("memacct.dry_run.goals._KEEPS_ONE", ())
    found = fitted("max-model-len", asked(model), engine)
    assert found.starts_count == 3
    last = engine.requests[-1].arguments
    assert last == ("--max-model-len", str(int(found.value or 0) + 1))
    more = int(found.value or 0) + 1
    assert found.beyond.startswith(f"{more} does not fit: KV cache below one request, ")


def test_a_model_that_fits_whole_takes_one_start(engine: AnalyticEngine, model: Path) -> None:
    found = fitted("max-model-len", asked(model, total=80 * GIB), engine)
    assert (found.value, found.starts_count) == ("131072", 1)
    assert "made for 131,072" in found.beyond


def test_the_smallest_utilization_takes_two_starts(engine: AnalyticEngine, model: Path) -> None:
    request = asked(model, "--max-model-len", "8192")
    found = fitted("utilization", request, engine)
    assert found.value is not None
    assert found.starts_count == len(engine.requests) <= 2
    for less, expected in ((0, "starts"), (0.01, "does not fit")):
        value = f"{float(found.value) - less:.2f}"
        changed = asked(model, "--max-model-len", "8192", "--gpu-memory-utilization", value)
        assert verdict(engine, changed) == expected
    assert found.run is not None
    assert found.run.origin != "interpolated", "the answer itself was run"


def test_a_neighbour_bounds_the_utilization_from_above(engine: AnalyticEngine, model: Path) -> None:
    request = asked(model, "--max-model-len", "8192")
    crowded = replace(request, machine=replace(request.machine, neighbours_bytes=(3 * GIB,)))
    found = fitted("utilization", crowded, engine)
    # 3.43 GiB and one request of 8,192 tokens; 4.6 GiB are free.
    assert found.value is not None
    assert 0.45 < float(found.value) < 0.57
    full = replace(request, machine=replace(request.machine, neighbours_bytes=(6 * GIB,)))
    found = fitted("utilization", full, engine)
    assert found.value is None
    assert found.run is not None
    assert "No utilization fits" in fit_text(found)
    assert "missing" in fit_text(found)


def test_the_most_sequences(engine: AnalyticEngine, model: Path) -> None:
    engine.sequence_bytes = 1300 << 10
    request = asked(model, "--max-model-len", "8192", "--max-num-batched-tokens", "8192")
    found = fitted("max-num-seqs", request, engine)
    assert found.value is not None
    for more, expected in ((0, "starts"), (1, "does not fit")):
        changed = replace(
            request,
            arguments=(*request.arguments, "--max-num-seqs", str(int(found.value) + more)),
        )
        assert verdict(engine, changed) == expected
    assert found.starts_count == len(engine.requests) <= 5


def test_the_fewest_cards(engine: AnalyticEngine, model: Path) -> None:
    engine.weights_bytes = 14 * GIB
    found = fitted("tp", asked(model, "--max-model-len", "8192"), engine)
    assert found.value == "4", "of 1, 2, 4 and 8, which share 32 heads"
    assert found.run is not None
    assert found.run.request.machine.count == 4
    assert {each.value: each.run and each.run.verdict for each in found.tries}["2"] == (
        "does not fit"
    )


def test_the_smallest_card(engine: AnalyticEngine, model: Path) -> None:
    engine.weights_bytes = 20 * GIB
    request = asked(model, "--max-model-len", "16384")
    found = fitted("gpu", request, engine)
    assert found.run is not None
    smaller = [
        each for each in found.tries if each.run is not None and each.run.verdict == "does not fit"
    ]
    assert found.run.verdict == "starts"
    assert (
        max(each.run.request.machine.cuda_total_bytes for each in smaller if each.run)
        < found.run.request.machine.cuda_total_bytes
    )
    assert found.starts_count <= 5


def test_a_card_that_no_engine_takes_is_passed_over(engine: AnalyticEngine, model: Path) -> None:
    engine.weights_bytes = 20 * GIB
    request = asked(model, "--max-model-len", "16384")
    best = fitted("gpu", request, engine).value

    def refuses(asked_for: Request) -> DryRun:
        if asked_for.machine.gpu == best:
            raise MemacctError("bfloat16 is not for this card")
        return engine(asked_for)

    found = fit(make_goal("gpu", request, machine), Answers(run=refuses))
    assert found.value not in {best, None}
    assert any(each.why_not == "bfloat16 is not for this card" for each in found.tries)


def test_what_no_length_can_change_takes_one_start(engine: AnalyticEngine, model: Path) -> None:
    request = asked(model)
    crowded = replace(request, machine=replace(request.machine, neighbours_bytes=(4 * GIB,)))
    found = fitted("max-model-len", crowded, engine)
    assert (found.value, found.starts_count) == (None, 1)
    assert "free below requested" in fit_text(found)


def test_a_second_fit_starts_nothing(engine: AnalyticEngine, model: Path) -> None:
    answers = Answers(run=engine)
    goal = make_goal("utilization", asked(model, "--max-model-len", "8192"), machine)
    first = fit(goal, answers)
    before = len(engine.requests)
    again = fit(goal, answers)
    assert (again.value, again.starts_count, len(engine.requests)) == (first.value, 0, before)


def test_tries_are_told_as_they_are_known(engine: AnalyticEngine, model: Path) -> None:
    told: list[FitTry] = []
    goal = make_goal("max-model-len", asked(model), machine)
    found = fit(goal, Answers(run=engine), told.append)
    assert tuple(told) == found.tries
    lines = [try_line("max-model-len", each) for each in told]
    assert lines[-1].startswith(f"--max-model-len {found.value}: starts, ")
    assert f"--max-model-len {found.value} " in fit_text(found)


def test_what_cannot_be_fitted(model: Path) -> None:
    with pytest.raises(ConfigError, match="--fit 'speed' is not one of max-model-len"):
        make_goal("speed", asked(model), machine)
    assert all(make_goal(name, asked(model), machine).name == name for name in GOALS)


def test_a_table_of_cards(engine: AnalyticEngine, model: Path) -> None:
    engine.weights_bytes = 30 * GIB
    request = asked(model, "--max-model-len", "8192")
    found = compare(("h100", "l4", "total=40GiB"), request, Answers(run=engine), machine)
    assert [each.run and each.run.verdict for each in found] == ["starts", "does not fit", "starts"]
    lines = compare_text(found).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["h100", "l4", "total=40GiB"]
    assert [line.split()[1] for line in lines[1:4]] == ["yes", "no", "yes"]
    assert lines[4].startswith("l4: no room for KV cache, ")
    first = found[0].run
    assert first is not None
    assert first.kv_tokens is not None
    assert f"{first.kv_tokens.value:,.0f}" in lines[1]


def test_an_unknown_card_is_told_before_anything_starts(
    engine: AnalyticEngine, model: Path
) -> None:
    with pytest.raises(ConfigError, match="h1000"):
        compare(("h100", "h1000"), asked(model), Answers(run=engine), machine)
    assert engine.requests == []
    with pytest.raises(ConfigError, match="names no card"):
        compare(parse_names(" , "), asked(model), Answers(run=engine), machine)


def test_two_engines_at_once_only_where_the_host_has_room() -> None:
    assert parse_names("h100, l4,h100") == ("h100", "l4")
    assert [at_once(each) for each in (None, MIB, 3 * GIB, 6 * GIB, 600 * GIB)] == [1, 1, 1, 2, 2]
    found = comparing.available_bytes()
    assert found is not None
    assert found > MIB


def test_a_line_goes_through_both_sides() -> None:
    """Two that miss by nearly the same tell nothing of where it fits; one of each side does."""
    spare = {1476: 440 * MIB, 1719: 96 * MIB, 1784: -1_457_520, 1783: -1_447_034}
    tries = [
        Try(index=index, outcome="fits" if left > 0 else "too much", spare_bytes=left)
        for index, left in spare.items()
    ]
    assert _on_a_line(tries) == 1782
    assert _on_a_line(tries[:2]) == 1719 + 96 * 243 // 344


def test_neighbours_leave_only_cards_with_room_for_what_is_asked(
    engine: AnalyticEngine, model: Path
) -> None:
    """Which cards those are is plain before any start: 16 GiB are more than half of 32."""
    request = asked(model, "--gpu-memory-utilization", "0.5", "--max-model-len", "8192")
    crowded = replace(request.machine, neighbours_bytes=(16 * GIB,))
    found = fitted("gpu", replace(request, machine=crowded), engine)
    assert [each.value for each in found.tries] == ["a100-40", "rtx5090"]
    assert found.value == "a100-40"
    assert found.beyond.startswith("rtx5090 does not fit: free below requested, ")
    goal = make_goal("gpu", replace(request, machine=crowded), machine)
    assert "t4" not in goal.values, "which has not even those 16 GiB"


def test_options_that_no_engine_takes_are_asked_once(model: Path) -> None:
    asked_count = 0

    def refuse(_request: Request, _started: bool) -> DryRun:
        nonlocal asked_count
        asked_count += 1
        raise OptionsError("vLLM refuses its options: unrecognized arguments: --no")

    with pytest.raises(OptionsError):
        fit(make_goal("gpu", asked(model), machine), refuse)
    assert asked_count == 1


def test_leaving_a_comparison_stops_what_it_started(model: Path) -> None:
    """What is raised for one card ends the engines of the others, and waits for none of them."""
    stop, running = threading.Event(), threading.Event()
    stopped = []

    def ask(request: Request, _started: bool) -> DryRun:
        if request.machine.gpu == "h100":
            running.set()
            stopped.append(stop.wait(60))
            raise CancelledError
        assert running.wait(60)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "available_bytes", lambda: 64 * GIB)
        with pytest.raises((KeyboardInterrupt, CancelledError)):
            compare(("l4", "h100", "t4"), asked(model), ask, machine, stop=stop)
    assert stopped == [True]
