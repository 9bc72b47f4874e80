"""Searches and reckonings held to the real engine: two layers, eager, on a simulated GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memacct._units import GIB, MIB
from memacct.demo.setup import engine_python
from memacct.dry_run import compare as comparing
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


def test_the_fewest_gpus_are_those_whose_parts_have_room(
    answers: Answers, request_: Request
) -> None:
    """One GPU has no room for the longest request, two have: two starts, one of two ranks."""
    alone = replace(machine("total=4GiB"), nvlink=False)
    asked = replace(changed(request_, max_model_len=1 << 18), machine=alone)
    found = fit(goal_for("tp", asked, answers, machine), answers)
    assert [each.value for each in found.tries] == ["2", "1"]
    assert (found.value, found.starts_count) == ("2", 2)
    assert found.run is not None
    assert [rank.device for rank in found.run.ranks] == [0, 1]
    single = answers(changed(asked, tensor_parallel_size=1))
    assert (single.origin, single.verdict) == ("cache", "does not fit")
    assert single.kv_request_blocks_count == found.run.kv_request_blocks_count
    assert found.beyond.startswith("1 does not fit: KV cache below one request, ")


def test_the_smallest_card_beside_a_neighbour(answers: Answers, request_: Request) -> None:
    """Half of a card must be free beside 16 GiB: of the catalogue's, 40 GiB do and 32 do not."""
    crowded = replace(machine(TOTAL), neighbours_bytes=(16 * GIB,))
    asked = replace(changed(request_, max_model_len=8192), machine=crowded)
    found = fit(goal_for("gpu", asked, answers, machine), answers)
    assert (found.value, found.starts_count) == ("a100-40", 2)
    assert found.run is not None
    assert found.run.request.machine.compute_capability == (8, 0)
    (rank,) = found.run.ranks
    assert {row.name: row.amount.bytes for row in rank.started}["neighbours"] == 16 * GIB
    smaller = next(each.run for each in found.tries if each.value == "rtx5090")
    assert smaller is not None
    assert smaller.refusal is not None
    assert smaller.refusal.kind == "free below requested"


def test_cards_beside_each_other_are_as_alone(answers: Answers, request_: Request) -> None:
    """Two engines at a time, which do not see each other: each has its own simulated GPU."""
    asked = changed(request_, max_model_len=8192)
    names = (TOTAL, "total=2GiB", "total=512MiB")
    begun: list[tuple[float, float]] = []
    own = make_answers(cache=False)

    def ask(request: Request, started: bool) -> DryRun:
        begin = time.monotonic()
        found = own(request, started)
        begun.append((begin, time.monotonic()))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "available_bytes", lambda: 6 * GIB)
        large, small, least = comparing.compare(names, asked, ask, machine)
    (first, second) = sorted(begun)[:2]
    assert second[0] < first[1], "the second began before the first had ended"
    runs = [each.run for each in (large, small, least)]
    assert [run and run.verdict for run in runs] == ["starts", "starts", "does not fit"]
    assert large.run is not None
    assert told(large.run) == told(answers(asked, True))


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [(signal.SIGINT, 130, "memacct: interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_a_signal_ends_every_engine_of_a_comparison(
    request_: Request, tmp_path: Path, number: signal.Signals, status: int, words: str
) -> None:
    command = [sys.executable, "-m", "memacct", "dryrun", "--no-cache"]
    command += ["--python", str(request_.python), "--compare", "total=3GiB,total=2GiB"]
    command += ["--", "vllm", "serve", str(request_.model), *SMALL]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ)
    end_s = time.monotonic() + 60
    while not (engines := engines_of(process.pid)):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        assert time.monotonic() < end_s
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (status, words)
    assert not list(tmp_path.glob("memacct-dryrun-*"))
    assert not [pid for pid in engines if Path(f"/proc/{pid}").exists()]


def engines_of(pid: int) -> list[int]:
    """Children of a process that are engines."""
    children = [
        int(child)
        for thread in Path(f"/proc/{pid}/task").glob("*/children")
        for child in thread.read_text().split()
    ]
    return [each for each in children if "memacct_dryrun.py" in command_of(each)]


def command_of(pid: int) -> str:
    """Empty of a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_the_models_own_length_and_other_defaults_are_no_other_question(
    answers: Answers, request_: Request
) -> None:
    """What the engine makes of options that are not given is its own word."""
    plain = replace(changed(request_, gpu_memory_utilization=None), machine=machine("total=16GiB"))
    first = answers(plain)
    assert first.settings["default_max_model_len"] == first.settings["max_model_len"] == 1 << 18
    given = changed(plain, max_model_len=1 << 18, port=8001, dtype="auto")
    utilization = first.settings["gpu_memory_utilization"]
    for same in (given, changed(given, gpu_memory_utilization=utilization)):
        assert answers(same, True).origin == "cache"
    shorter = answers(changed(request_, max_model_len=8192), True)
    assert shorter.settings["max_model_len"] == 8192
    assert shorter.settings["default_max_model_len"] == 1 << 18, "also where one is given"
