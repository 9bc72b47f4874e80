"""A dry run's answer fits a terminal, and says what it knows."""

from __future__ import annotations

from dataclasses import replace

from dry_runs import a_request

from memacct._units import GIB, MIB
from memacct.dry_run.result import Amount, Count, DryRun, Host, Phase, Rank, Refusal, Row
from memacct.dry_run.text import dryrun_text


def amount(size: int, less: int = 0, more: int = 0) -> Amount:
    return Amount(bytes=size, low_bytes=size - less, high_bytes=size + more, source="told")


def row(name: str, size: int, less: int = 0, more: int = 0) -> Row:
    return Row(name=name, amount=amount(size, less, more))


RANK = Rank(
    rank=0,
    device=0,
    total_bytes=8 * GIB,
    requested_bytes=7 * GIB,
    free_at_start_bytes=7 * GIB + 500 * MIB,
    weights=amount(3 * GIB),
    activation_peak=amount(GIB),
    kv_cache=amount(2 * GIB, GIB, GIB),
    kv_room_bytes=2 * GIB + 5,
    peak=(
        row("weights", 3 * GIB),
        row("activation peak", GIB),
        row("CUDA context", 400 * MIB, 100 * MIB, 100 * MIB),
        row("free", 4 * GIB - 400 * MIB),
    ),
    started=(
        row("weights", 3 * GIB),
        row("KV cache", 2 * GIB, GIB, GIB),
        row("CUDA context", 400 * MIB, 100 * MIB, 100 * MIB),
        row("free", 3 * GIB - 400 * MIB),
    ),
)
RUN = DryRun(
    request=a_request(),
    verdict="starts",
    versions={"vllm": "0.33.0"},
    settings={"max_model_len": 4096, "max_num_seqs": 256, "tensor_parallel_size": 2},
    ranks=(RANK, replace(RANK, rank=1, device=1)),
    kv_tokens=Count(value=16384.0, low=8192.0, high=24576.0),
    concurrency=Count(value=4.0, low=2.0, high=6.0),
    host=Host(held=amount(GIB), reclaimable=amount(6 * GIB), processes_count=4),
    timeline=(
        Phase(name="import", rank=None, begin_s=0.0, seconds=9.0),
        Phase(name="load", rank=1, begin_s=9.0, seconds=7.0),
    ),
    notes=("the tokenizer is made up",),
)


def test_one_screen() -> None:
    lines = dryrun_text(RUN).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)


def test_what_it_says() -> None:
    lines = dryrun_text(RUN).splitlines()
    text = " ".join(" ".join(lines).split())
    assert lines[0].endswith("starts")
    assert "256 requests, tp 2" in text
    assert "KV cache: 16,384 (8,192 to 24,576) tokens, 4.00 (2.00 to 6.00) requests" in text
    table = [line.split() for line in lines if line.startswith("  total ")]
    assert table == [["total", "8.00", "GiB", "8.00", "GiB"]]
    context = next(line for line in lines if line.startswith("  CUDA context"))
    assert context.count("400.00 MiB 0.29-0.49") == 2
    assert "7.00 GiB asked for, less weights 3.00 GiB, activation 1.00 GiB and 1024.00 MiB" in text
    assert "GPU 1, rank 1: weights 3.00 GiB, KV cache 2.00 GiB" in text
    assert "import 9 s" in text
    assert "load" not in text  # of another rank
    assert text.count("tokenizer is made up") == 1


def test_a_refusal_says_what_is_missing_and_what_to_try() -> None:
    refused = Refusal(
        kind="KV cache below one request",
        message="To serve at least one request " * 9,
        missing=amount(GIB),
        suggestions=("--max-model-len 2048 (the engine's own plan)",),
    )
    rank = replace(RANK, started=(), kv_cache=None)
    run = replace(RUN, verdict="does not fit", refusal=refused, ranks=(rank,), kv_tokens=None)
    text = dryrun_text(run)
    assert text.splitlines()[0].endswith("DOES NOT FIT")
    assert "Missing: 1.00 GiB of one GPU" in text
    assert "Try: --max-model-len 2048" in text
    assert "KV cache:" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_is_not_known_is_left_out() -> None:
    bare = DryRun(request=a_request(), verdict="does not fit", versions={}, settings={}, ranks=())
    assert len(dryrun_text(bare).splitlines()) <= 4
