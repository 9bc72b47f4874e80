"""Each named scenario: whose memory it is there, by which source, within which bounds.

The answers are in scenario_answers.py. What they must satisfy whatever they say (the terms add
up, a bound contains the truth) is checked against the simulated machine's own account.
"""

from __future__ import annotations

import functools
import subprocess
from typing import Any

import pytest
import scenario_answers
import scenario_answers_shared
from device_process import DeviceProcess
from scenario_answers import Answer

from memacct._errors import ConfigError
from memacct.sim import SimulatedGpu, scenarios

ANSWERS = {**scenario_answers.ANSWERS, **scenario_answers_shared.ANSWERS}
TERMS = ("free_bytes", "reserved_bytes", "own_bytes", "tree_bytes", "foreign_bytes")
HOST_TERMS = ("withheld_bytes", "page_cache_bytes", "host_processes_bytes")


@functools.cache
def can_run(tool: str) -> bool:
    """Whether this machine lets us make the namespaces that the tool's programs run in."""
    command = {"unshare": ["unshare", "-mpf", "true"]}.get(tool, [tool, "true"])
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


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
    for name, wanted in answer.fields.items():
        found = reading[name]
        if isinstance(wanted, dict):
            found = {key: found[key] for key in wanted}
        assert found == wanted, name
    assert reading["consistent"]


def assert_lawful(reading: dict[str, Any]) -> None:
    terms = [reading[name] for name in TERMS]
    unified = reading["unified"]
    if unified is not None and unified["kind"] == "integrated":
        assert reading["reserved_bytes"] is None
        terms.remove(None)
        terms += [unified[name] for name in HOST_TERMS]
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
    with scenarios.open(name) as gpu:
        if gpu.prefix and not can_run(gpu.prefix[0]):
            pytest.skip(f"no right to run {gpu.prefix[0]}")
        assert_answered(gpu, answer)


def assert_answered(gpu: SimulatedGpu, answer: Answer) -> None:
    with DeviceProcess(gpu) as process:
        process.run(answer.setup)
        reading = process.read(answer.key)
        assert_says(reading, answer)
        assert_lawful(reading)
        found = process.run(f"result = attempt(_core.identify, {answer.key!r})")
        after = process.read(answer.key)
        assert_lawful(after)
        assert (found["source"], after["own_bytes"]) == answer.identified
