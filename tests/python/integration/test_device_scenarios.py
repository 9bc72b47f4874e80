"""Each named scenario: whose memory it is there, by which source, within which bounds.

The answers are in scenario_answers.py. What they must satisfy whatever they say (the terms add
up, a bound contains the truth) is checked against the simulated machine's own account.
"""

from __future__ import annotations

import functools
import subprocess
from typing import Any

import pytest
from device_process import DeviceProcess
from scenario_answers import ANSWERS, Answer

from memacct._errors import ConfigError
from memacct.sim import SimulatedGpu, scenarios

TERMS = ("free_bytes", "reserved_bytes", "own_bytes", "tree_bytes", "foreign_bytes")


@functools.cache
def can_run(prefix: tuple[str, ...]) -> bool:
    command = [*prefix, "true"]
    return not prefix or subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_every_scenario_has_an_answer() -> None:
    assert set(scenarios.SCENARIOS) == set(ANSWERS)


def test_names_and_descriptions_are_one_line() -> None:
    for name, scenario in scenarios.SCENARIOS.items():
        assert scenario.name == name
        assert name == name.lower().replace(" ", "-").replace("_", "-")
        assert len(scenario.description.splitlines()) == 1
        assert len(scenario.description) <= 100, name


def test_an_unknown_scenario_is_named() -> None:
    with pytest.raises(ConfigError, match="'host-pidz' does not exist; did you mean host-pids"):
        SimulatedGpu.scenario("host-pidz")


def assert_says(reading: dict[str, Any], answer: Answer) -> None:
    assert {name: reading[name] for name in answer.terms()} == answer.terms()
    attribution = reading["attribution"]
    assert attribution["source"] == answer.source, attribution
    assert tuple(attribution["own_bounds_bytes"]) == answer.bounds_bytes
    if answer.reason:
        assert answer.reason in attribution["reason"]
    else:
        assert attribution["reason"] == ""
    assert {name: reading[name] for name in answer.fields} == dict(answer.fields)
    assert reading["consistent"]


def assert_lawful(reading: dict[str, Any]) -> None:
    terms = [reading[name] for name in TERMS]
    if None not in terms and reading["unattributed_bytes"] is not None:
        assert sum(terms) + reading["unattributed_bytes"] == reading["total_bytes"]
    low, high = reading["attribution"]["own_bounds_bytes"]
    own = reading["own_bytes"]
    if own is not None:
        assert (low, high) == (own, own)
    else:
        assert reading["attribution"]["reason"]


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_scenario(name: str) -> None:
    answer = ANSWERS[name]
    if not can_run(scenarios.find(name).prefix):
        pytest.skip(f"no right to run {scenarios.find(name).prefix[0]}")
    with scenarios.open(name) as gpu, DeviceProcess(gpu) as process:
        process.run(answer.setup)
        reading = process.read(answer.key)
        assert_says(reading, answer)
        assert_lawful(reading)
        found = process.run(f"result = attempt(_core.identify, {answer.key!r})")
        after = process.read(answer.key)
        assert_lawful(after)
        assert (found["source"], after["own_bytes"]) == answer.identified
