"""What is kept of dry runs: by what determines them, whole or not at all, and not for ever."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from analytic_engine import AnalyticEngine
from dry_runs import a_machine, a_request

from memacct._errors import SourceUnavailableError
from memacct.dry_run import planned
from memacct.dry_run.answers import Answers
from memacct.dry_run.cache import Cache, default_folder
from memacct.dry_run.fingerprint import Fingerprint, fingerprint, sources_digest
from memacct.dry_run.interpolate import interpolate

if TYPE_CHECKING:
    from memacct.dry_run.request import Request
    from memacct.dry_run.result import DryRun

UTILIZATION, LENGTH = "--gpu-memory-utilization", "--max-model-len"


def write_model(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def asked(model: Path, *arguments: str, **changed: Any) -> Request:
    return a_request(*arguments, model=model, python=Path(sys.executable), **changed)


def key(request: Request, **environ: str) -> Fingerprint:
    return fingerprint(request, environ=environ)


def test_content_counts_and_not_where_it_lies(model: Path, tmp_path: Path) -> None:
    copy = write_model(tmp_path / "elsewhere" / "copy")
    os.utime(copy / "config.json", (1, 1))
    assert key(asked(model)) == key(asked(copy))
    assert key(asked(model / "config.json")) == key(asked(copy / "config.json"))
    before = key(asked(copy))
    write_model(copy, hidden_size=64)
    assert key(asked(copy)) != before
    before = key(asked(copy))
    (copy / "hf_quant_config.json").write_text("{}")
    assert key(asked(copy)) != before


def test_weights_count_by_their_heads_and_sizes(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(b"head" + bytes(2 << 20) + b"a")
    before = key(asked(model))
    file.write_bytes(b"head" + bytes(2 << 20) + b"b")
    assert key(asked(model)) == before, "values are made up anyway"
    file.write_bytes(b"head" + bytes(2 << 20) + b"bc")
    assert key(asked(model)) != before
    file.write_bytes(b"tail" + bytes(2 << 20) + b"a")
    assert key(asked(model)) != before


def test_spelling_does_not_count(model: Path) -> None:
    one = asked(model, LENGTH, "4096", "--enforce-eager", "--max-num-seqs", "8")
    other = asked(model, "--max_num_seqs=8", "--max-model-len=4096", "--enforce-eager")
    assert key(one) == key(other)


@pytest.mark.parametrize(
    "changed",
    [
        {"machine": a_machine(cuda_total_bytes=7 << 30)},
        {"machine": a_machine(driver_name="NVIDIA A100-SXM4-80GB")},
        {"machine": a_machine(compute_capability=(8, 0))},
        {"machine": a_machine(sm_count=108)},
        {"machine": a_machine(count=2)},
        {"machine": a_machine(gpu="h100")},
        {"environ": {"VLLM_USE_V2_MODEL_RUNNER": "0"}},
    ],
)
def test_what_counts(model: Path, changed: dict[str, Any]) -> None:
    plain = key(asked(model))
    found = key(asked(model, **changed))
    assert found.family != plain.family


def test_a_cards_names_are_one(model: Path) -> None:
    names = ("h100", "H100-80", "NVIDIA H100 80GB HBM3")
    keys = {key(asked(model, machine=a_machine(gpu=name, title=name))) for name in names}
    assert len(keys) == 1


def test_inherited_variables_count_if_engines_read_them(model: Path) -> None:
    plain = key(asked(model))
    assert key(asked(model), VLLM_ATTENTION_BACKEND="TRITON_ATTN") != plain
    assert key(asked(model), PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True") != plain
    for name in ("PATH", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "HF_HOME", "LANG"):
        assert key(asked(model), **{name: "/somewhere"}) == plain, name


def test_files_that_options_name_count(model: Path, tmp_path: Path) -> None:
    draft = write_model(tmp_path / "draft")
    option = ("--speculative-config", json.dumps({"model": str(draft), "n": 3}))
    before = key(asked(model, *option))
    write_model(draft, num_hidden_layers=2)
    assert key(asked(model, *option)) != before
    file = tmp_path / "serve.yaml"
    file.write_text("max-num-seqs: 8")
    before = key(asked(model, "--config", str(file)))
    file.write_text("max-num-seqs: 9")
    assert key(asked(model, "--config", str(file))) != before


def test_a_long_text_with_slashes_names_no_file(model: Path) -> None:
    """A template is longer than a file's name may be."""
    template = "{% for each in messages %}" + "x" * 300 + "</s>{% endfor %}"
    key(asked(model, "--chat-template", template))


def test_the_cards_and_the_formulas_count_as_the_dry_run_itself_does(tmp_path: Path) -> None:
    files = [f"{name}/data.json" for name in ("dry_run", "sim", "cards", "planning", "report")]
    digests = []
    for changed in ("", *files):
        package = tmp_path / (changed or "plain").replace("/", "-")
        for name in files:
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_text("changed" if name == changed else "")
        digests.append(sources_digest(package))
    plain, *others, report = digests
    assert len({plain, *others}) == 5
    assert report == plain, "what only shows an answer is no part of it"


def test_packages_beside_the_engine_count(model: Path, tmp_path: Path) -> None:
    keys = set()
    for version in ("1.0", "1.1"):
        folder = tmp_path / version
        about = folder / "flashinfer_python.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Name: flashinfer-python\nVersion: {version}\n")
        python = folder / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        keys.add(key(replace(asked(model), python=python)).family)
    assert len(keys) == 2
    with pytest.raises(SourceUnavailableError, match="does not run"):
        key(replace(asked(model), python=tmp_path / "none"))


def test_costs_and_what_may_be_interpolated(model: Path) -> None:
    plain = fingerprint(asked(model), environ={})
    assert fingerprint(asked(model), environ={}, costs={"nccl": 1}).family != plain.family
    neighbour = asked(model, machine=a_machine(neighbours_bytes=(1 << 30,)))
    for other in (asked(model, UTILIZATION, "0.8"), asked(model, LENGTH, "99"), neighbour):
        found = key(other)
        assert found.family == plain.family
        assert found.rest != plain.rest


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    return Answers(run=AnalyticEngine(), cache=Cache(folder=tmp_path / "cache"))


def starts(answers: Answers) -> int:
    assert isinstance(answers.run, AnalyticEngine)
    return len(answers.run.requests)


def test_the_same_is_asked_once(answers: Answers, model: Path) -> None:
    first = answers(asked(model, LENGTH, "4096"))
    again = replace(answers, kept={})(asked(model, "--max_model_len=4096"))
    assert (first.origin, again.origin, starts(answers)) == ("run", "cache", 1)
    assert again.request.arguments == ("--max_model_len=4096",)
    plain = {"origin": "run", "took_s": 0.0, "request": first.request}
    assert replace(again, **plain) == replace(first, **plain)  # type: ignore[arg-type]


def test_another_utilization_is_reckoned_unless_a_run_is_wanted(
    answers: Answers, model: Path
) -> None:
    answers(asked(model, LENGTH, "4096"))
    fresh = replace(answers, kept={})
    request = asked(model, LENGTH, "4096", UTILIZATION, "0.8")
    assert fresh(request).origin == "interpolated"
    assert starts(answers) == 1
    assert fresh(request, started=True).origin == "run"
    assert fresh(request).origin == "cache", "a run goes before what is reckoned"


@pytest.mark.parametrize("length", ["-1", "auto"])
def test_a_length_that_the_engine_chooses_is_not_reckoned(length: str, model: Path) -> None:
    run = AnalyticEngine()(asked(model, LENGTH, "4096"))
    run = replace(run, request=asked(model, LENGTH, length))
    assert interpolate(asked(model, LENGTH, length, UTILIZATION, "0.8"), [run]) is None


def test_what_is_no_utilization_is_left_to_the_engine(model: Path) -> None:
    run = AnalyticEngine()(asked(model, LENGTH, "4096"))
    run = replace(run, settings={**run.settings, "gpu_memory_utilization": 0.92})
    assert interpolate(asked(model, LENGTH, "4096", UTILIZATION, "0.8"), [run]) is not None
    assert interpolate(asked(model, LENGTH, "4096", UTILIZATION, "much"), [run]) is None
    assert planned.spare_bytes(asked(model, LENGTH, "4096", UTILIZATION, "much")) is None


def test_two_may_ask_at_once(answers: Answers, model: Path) -> None:
    """A comparison does: what one adds does not disturb the other that looks through it."""
    answers(asked(model, LENGTH, "4096"))
    relatives = answers._relatives(key(asked(model, LENGTH, "4096", UTILIZATION, "0.8")))
    next(relatives, None)
    answers(asked(model, "--max-num-seqs", "8"))
    assert all(each.origin == "run" for each in relatives)


def test_without_a_cache_nothing_is_written(tmp_path: Path, model: Path) -> None:
    answers = Answers(run=AnalyticEngine())
    answers(asked(model, LENGTH, "4096"))
    assert answers(asked(model, LENGTH, "4096", UTILIZATION, "0.8")).origin == "interpolated"
    assert list(tmp_path.iterdir()) == [model]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"entry": 1}', '{"entry": 0, "run": {}}'])
def test_a_damaged_entry_is_as_if_it_were_not_there(
    answers: Answers, model: Path, text: str
) -> None:
    request = asked(model, LENGTH, "4096")
    answers(request)
    assert answers.cache is not None
    (entry,) = answers.cache.folder.glob("*.json")
    whole = entry.read_bytes()
    for damaged in (text.encode(), whole[: len(whole) // 2], b"\xff" + whole):
        entry.write_bytes(damaged)
        assert replace(answers, kept={})(request).origin == "run"
        assert entry.read_bytes()[:2] == b'{"', "and it is written anew"


def test_an_entry_of_another_schema_is_not_read(answers: Answers, model: Path) -> None:
    request = asked(model)
    answers(request)
    assert answers.cache is not None
    (entry,) = answers.cache.folder.glob("*.json")
    data = json.loads(entry.read_text())
    data["run"]["schema_version"] = 0
    entry.write_text(json.dumps(data))
    assert replace(answers, kept={})(request).origin == "run"


def test_the_oldest_go(tmp_path: Path, model: Path) -> None:
    cache = Cache(folder=tmp_path / "cache", most_entries=3)
    answers = Answers(run=AnalyticEngine(), cache=cache)
    for number in range(1, 6):
        answers(asked(model, "--max-num-seqs", str(number)))
        for age, path in enumerate(sorted(cache.folder.glob("*.json"), key=os.path.getmtime)):
            os.utime(path, (number * 100 + age, number * 100 + age))
    assert len(list(cache.folder.iterdir())) == 3, "and nothing half written is left"
    fresh = replace(answers, kept={})
    assert fresh(asked(model, "--max-num-seqs", "5")).origin == "cache"
    assert fresh(asked(model, "--max-num-seqs", "1")).origin == "run"


def test_a_folder_that_cannot_be_made_costs_only_the_cache(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").write_text("")
    answers = Answers(run=AnalyticEngine(), cache=Cache(folder=tmp_path / "file" / "cache"))
    assert answers(asked(model)).origin == "run"


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_folder() == Path("/x/memacct/dryrun")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert default_folder() == Path("/h/.cache/memacct/dryrun")


@pytest.mark.parametrize(
    "options",
    [
        ("--port", "8001", "--host", "::1"),
        ("--served-model-name=mine", "--api-key", "secret"),
        ("-tp", "1", "--pipeline_parallel_size=1"),
        ("--dtype", "auto", "--kv-cache-dtype", "auto"),
    ],
)
def test_what_changes_nothing_does_not_count(model: Path, options: tuple[str, ...]) -> None:
    assert key(asked(model, *options)) == key(asked(model))
    other = asked(model, "--enforce-eager", "--max-num-seqs", "8", *options)
    assert key(other) == key(asked(model, *options, "--max-num-seqs=8", "--enforce-eager"))


@pytest.mark.parametrize(
    "options",
    [
        ("--port", "none"),  # which the parser refuses
        ("--host", "a", "b"),
        ("-tp", "2"),
        ("--dtype", "half"),
        ("--dtype", "half", "--dtype", "auto"),
        ("--kv-cache-dtype", "fp8"),
    ],
)
def test_what_may_change_something_counts(model: Path, options: tuple[str, ...]) -> None:
    assert key(asked(model, *options)).family != key(asked(model)).family


def test_what_goes_before_a_file_of_options_counts(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("tensor-parallel-size: 2")
    plain = key(asked(model, "--config", str(file)))
    assert key(asked(model, "--config", str(file), "-tp", "1")).family != plain.family


@pytest.fixture
def telling(answers: Answers) -> Answers:
    """Answers of an engine that tells what it would make of a length that is not given."""
    defaults = {"default_max_model_len": 8192, "default_gpu_memory_utilization": 0.92}
    engine = AnalyticEngine(limit_tokens=8192)

    def run(request: Request) -> DryRun:
        found = engine(request)
        return replace(found, settings={**found.settings, **defaults})

    return replace(answers, run=run)


def test_a_default_that_is_given_is_the_same_question(telling: Answers, model: Path) -> None:
    first = telling(asked(model))
    assert (first.origin, first.settings["gpu_memory_utilization"]) == ("run", 0.92)
    for given in ((LENGTH, "8192"), (UTILIZATION, "0.920"), (UTILIZATION, "0.92", LENGTH, "8192")):
        again = replace(telling, kept={})(asked(model, *given), started=True)
        assert (again.origin, again.kv_tokens) == ("cache", first.kv_tokens), given
        assert again.request.arguments == given
    for given in ((LENGTH, "8191"), (LENGTH, "auto"), (UTILIZATION, "0.91")):
        assert replace(telling, kept={})(asked(model, *given), started=True).origin == "run", given


def test_and_so_is_one_that_is_not_given(telling: Answers, model: Path) -> None:
    assert telling(asked(model, LENGTH, "4096")).origin == "run"
    assert replace(telling, kept={})(asked(model), started=True).origin == "run"
    other = write_model(model.parent / "other", hidden_size=64)
    assert telling(asked(other, LENGTH, "8192")).origin == "run"
    assert replace(telling, kept={})(asked(other), started=True).origin == "cache"
    crowded = asked(model, machine=a_machine(neighbours_bytes=(1 << 20,)))
    assert replace(telling, kept={})(crowded, started=True).origin == "run"


def test_what_no_engine_told_is_not_guessed(answers: Answers, model: Path) -> None:
    answers(asked(model, LENGTH, "131072"))
    assert replace(answers, kept={})(asked(model), started=True).origin == "run"
