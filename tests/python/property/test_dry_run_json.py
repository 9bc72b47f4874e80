"""What is written of a dry run is read back equal; and two spellings of a request are one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from dry_runs import RUNS
from hypothesis import given, settings
from hypothesis import strategies as st

from memacct.dry_run.arguments import canonical, value_of, with_option
from memacct.dry_run.as_json import SCHEMA, from_json, to_json

if TYPE_CHECKING:
    from memacct.dry_run.result import DryRun

NAMES = st.sampled_from(
    [
        "--max-model-len",
        "--max-num-seqs",
        "--block-size",
        "--seed",
        "--dtype",
        "--max-num-batched-tokens",
    ]
)
OPTIONS = st.dictionaries(NAMES, st.integers(1, 10**6), min_size=1)
UTILIZATION = "--gpu-memory-utilization"


@settings(max_examples=25, deadline=None)
@given(run=RUNS)
def test_json_and_back_is_the_same(run: DryRun) -> None:
    assert from_json(json.loads(json.dumps(to_json(run)))) == run


@settings(max_examples=2, deadline=None)
@given(run=RUNS)
def test_another_schema_is_not_read(run: DryRun) -> None:
    with pytest.raises(ValueError, match="schema"):
        from_json({**to_json(run), "schema_version": SCHEMA + 1})


@settings(max_examples=40, deadline=None)
@given(options=OPTIONS, data=st.data())
def test_spelling_and_order_do_not_matter(options: dict[str, int], data: st.DataObject) -> None:
    plain = [word for name, value in options.items() for word in (name, str(value))]
    other: list[str] = []
    for name in data.draw(st.permutations(sorted(options))):
        dashed = "--" + name[2:].replace("-", data.draw(st.sampled_from("-_")))
        value = str(options[name])
        other += [f"{dashed}={value}"] if data.draw(st.booleans()) else [dashed, value]
    assert canonical(plain) == canonical(other)
    name = data.draw(st.sampled_from(sorted(options)))
    changed = {**options, name: options[name] + 1}
    assert canonical(plain) != canonical([f"{name}={value}" for name, value in changed.items()])


@settings(max_examples=40, deadline=None)
@given(options=OPTIONS, value=st.integers(1, 10**6), name=NAMES)
def test_an_option_that_is_set_is_what_it_ends_up_with(
    options: dict[str, int], value: int, name: str
) -> None:
    plain = [f"{name}={value}" for name, value in options.items()]
    changed = with_option(plain, name, value)
    assert value_of(changed, name) == str(value)
    assert canonical(changed) == canonical(
        [f"{n}={v}" for n, v in {**options, name: value}.items()]
    )
    assert value_of(with_option(plain, name, None), name) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["-tp", "2"], ["--tensor-parallel-size=2"]),
        (["--gpu-memory-util", "0.90"], [UTILIZATION, "0.9"]),
        (["--max-model-len", "32k"], ["--max_model_len=32000"]),
        (["--max-model-len", "32K"], ["--max-model-len", "32768"]),
        (["--max-num-seqs", "4", "--max-num-seqs", "8"], ["--max-num-seqs", "8"]),
        (["--kv-cache-memory", "1G"], ["--kv-cache-memory-bytes", str(2**30)]),
        (["-cc", '{"a": 1, "b": 2}'], ["--compilation-config", '{"b":2,"a":1}']),
    ],
)
def test_what_is_the_same_to_the_engine(one: list[str], other: list[str]) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["--enforce-eager"], []),
        (["--enable-x", "--no-enable-x"], ["--no-enable-x", "--enable-x"]),
        (["--disable-x", "--enable-x"], ["--enable-x", "--disable-x"]),
        (["--max-num-seqs", "4", "--max-num-seqs", "8"], ["--max-num-seqs", "4"]),
        (["--lora-modules", "a=/a", "b=/b"], ["--lora-modules", "b=/b"]),
        (["--max-model-len", "-1"], ["--max-model-len", "1"]),
        (["--revision", "0.10"], ["--revision", "0.1"]),
    ],
)
def test_what_is_not_the_same_to_the_engine(one: list[str], other: list[str]) -> None:
    assert canonical(one) != canonical(other)
