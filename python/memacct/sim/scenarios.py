"""Named scenarios: machines as people have met them, each ready to be opened.

    with scenarios.open("host-pids") as gpu:
        gpu.run([sys.executable, "program.py"], check=True)

A family of scenarios is a module with a tuple ``ALL``; the registry joins the families.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memacct._errors import ConfigError
from memacct.sim import (
    _scenarios_drivers,
    _scenarios_instances,
    _scenarios_moving,
    _scenarios_pids,
    _scenarios_quota,
    _scenarios_unified,
)
from memacct.sim._scenario import Scenario, ScenarioTenant

if TYPE_CHECKING:
    from memacct.sim._gpu import SimulatedGpu

__all__ = ["SCENARIOS", "Scenario", "ScenarioTenant", "find", "open"]

_FAMILIES: tuple[tuple[Scenario, ...], ...] = (
    _scenarios_drivers.ALL,
    _scenarios_moving.ALL,
    _scenarios_pids.ALL,
    _scenarios_instances.ALL,
    _scenarios_quota.ALL,
    _scenarios_unified.ALL,
)


def _by_name() -> dict[str, Scenario]:
    found: dict[str, Scenario] = {}
    for scenario in (each for family in _FAMILIES for each in family):
        if scenario.name in found:
            raise ValueError(f"two scenarios are named {scenario.name!r}")
        found[scenario.name] = scenario
    return found


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(_by_name())


def find(name: str) -> Scenario:
    """Returns the scenario of that name.

    Raises:
        ConfigError: there is none.
    """
    if name in SCENARIOS:
        return SCENARIOS[name]
    near = difflib.get_close_matches(name, SCENARIOS, n=3)
    allowed = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(SCENARIOS)}"
    raise ConfigError(f"scenario={name!r} does not exist; {allowed}")


def open(name: str, **settings: Any) -> SimulatedGpu:  # noqa: A001 (read as scenarios.open)
    """Returns the machine of that scenario; its neighbours start with the ``with`` block.

    Args:
        name: the scenario's.
        settings: arguments of ``SimulatedGpu`` that are to differ.
    """
    from memacct.sim._gpu import SimulatedGpu

    return SimulatedGpu.scenario(name, **settings)
