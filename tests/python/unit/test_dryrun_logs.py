"""The public logs' data, how a dry run of one is judged, and the page that is written of them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from bench.dryrun import page, store  # noqa: E402
from bench.dryrun.cases import GIB, Case, Log, load  # noqa: E402
from bench.dryrun.judge import judge  # noqa: E402
from bench.dryrun.summary import summarize  # noqa: E402

CASE = Case(
    key="one",
    source="https://example.org/log",
    vllm="0.31.0",
    card="h100",
    total_gib=79.19,
    count=1,
    wsl2=False,
    model="Llama-3.1-8B-Instruct",
    arguments=("--max-model-len", "8192"),
    log=Log(weights_gib=14.99, kv_gib=58.11, kv_tokens=476_016, peak_gib=1.89),
)


def answer(tokens: int, **more: Any) -> dict[str, Any]:
    token_bytes = 131_072
    found = {
        "key": "one",
        "verdict": "starts",
        "kv_tokens": tokens,
        "kv_tokens_low": tokens - 1000,
        "kv_tokens_high": tokens + 1000,
        "kv_bytes": tokens * token_bytes,
        "kv_low_bytes": (tokens - 1000) * token_bytes,
        "kv_high_bytes": (tokens + 1000) * token_bytes,
        "weights_bytes": int(14.99 * GIB),
        "peak_bytes": 2 * GIB,
        "took_s": 1.0,
    }
    return found | more


def test_each_case_is_whole() -> None:
    cases = load()

    assert len({case.key for case in cases}) == len(cases)
    for case in cases:
        assert case.source, case.key
        assert (case.card is None) == (case.device is not None), case.key
        assert case.log.kv_tokens is not None or case.log.kv_gib is not None, case.key
        assert case.stated == "full" or case.open, case.key
        assert case.log.fits == (case.log.kv_gib is None or case.log.kv_gib > 0), case.key


def test_enough_cases_are_held_out() -> None:
    """Half of them were; one whose miss led to a correction counts as looked at from then on."""
    cases = load()

    assert sum(case.held_out for case in cases) >= len(cases) * 2 // 5


def test_tokens_are_compared_where_the_log_prints_them() -> None:
    one = judge(CASE, answer(480_000))

    assert one.kv_ratio == pytest.approx(480_000 / 476_016 - 1)
    assert one.kv_difference_gib == pytest.approx((480_000 - 476_016) / 8192)
    assert one.is_kv_near  # 0.84 %
    assert not one.is_contained
    assert one.differences_gib["peak"] == pytest.approx(0.11)


@pytest.mark.parametrize(
    ("tokens", "near", "contained"),
    [(475_500, True, True), (476_016 + 1001, True, False), (476_016 + 10_000, False, False)],
)
def test_near_is_2_percent_or_300_mib_and_in_range_is_within_the_stated_range(
    tokens: int, near: bool, contained: bool
) -> None:
    one = judge(CASE, answer(tokens))

    assert (one.is_kv_near, one.is_contained) == (near, contained)


def test_newer_logs_count_their_graphs_to_the_peak_and_the_rest_is_consumed() -> None:
    log = Log(kv_tokens=480_000, consumed_gib=15.26, peak_gib=1.44)
    sizes = {"requested_bytes": 75 * GIB, "kv_tokens": 480_000, "kv_bytes": 58 * GIB}
    graphs = {"graphs_estimated_bytes": GIB // 2, "peak_bytes": GIB}

    one = judge(replace(CASE, log=log), answer(480_000) | sizes | graphs)

    assert one.differences_gib["peak"] == pytest.approx(1.5 - 1.44)
    assert one.differences_gib["consumed"] == pytest.approx(75 - 58 - 1.5 - 15.26)


def test_a_small_remainder_is_judged_by_gib() -> None:
    small = replace(CASE, log=Log(kv_tokens=8192))

    assert judge(small, answer(8192 + 2000)).is_kv_near  # 24 %, 0.24 GiB
    assert not judge(small, answer(8192 + 3000)).is_kv_near


def test_gib_are_compared_to_what_the_log_rounds_to() -> None:
    log = Log(kv_gib=58.11)

    one = judge(replace(CASE, log=log), answer(475_000, kv_low_bytes=int(58.114 * GIB)))
    other = judge(replace(CASE, log=log), answer(475_000, kv_low_bytes=int(58.12 * GIB)))

    assert one.is_contained
    assert not other.is_contained


def test_a_wrong_verdict_is_no_near_miss() -> None:
    refused = {"key": "one", "verdict": "does not fit", "took_s": 1.0}

    one = judge(CASE, refused)

    assert not one.is_verdict_right
    assert one.kv_ratio is None
    assert summarize([one]).verdicts_right_count == 0


def test_a_summary_counts_what_was_judged() -> None:
    of = summarize(judge(CASE, answer(tokens)) for tokens in (476_016, 475_016, 600_000))

    assert (of.count, of.near_count, of.contained_count) == (3, 2, 2)
    assert of.kv_ratio_worst == pytest.approx(600_000 / 476_016 - 1)
    assert of.kv_ratio_median == pytest.approx(1000 / 476_016)
    assert (of.weights_count, of.weights_near_count) == (3, 3)


def test_results_are_kept_case_by_case(tmp_path: Path) -> None:
    book = store.Book(tmp_path / "results.json")

    book.keep({"key": "a", "error": "hung"})
    book.keep({"key": "b", "verdict": "starts"})
    store.Book(book.path).keep({"key": "a", "verdict": "starts"})

    assert book.results() == {
        "a": {"key": "a", "verdict": "starts"},
        "b": {"key": "b", "verdict": "starts"},
    }


def test_a_case_without_an_answer_says_why() -> None:
    text = page.page([CASE], {"one": {"key": "one", "error": "the engine hung\nlog: x"}})

    assert "no answer: the engine hung" in text
    assert "Without an answer: one." in text


def test_the_page_is_what_the_stored_results_make() -> None:
    """Both are in the repository: neither may be changed without the other."""
    found = sorted((ROOT / "bench" / "results").glob("dryrun-logs-*.json"))

    results = store.Book(found[0]).results()

    assert (ROOT / "docs" / "dryrun-logs.md").read_text() == page.page(load(), results)
