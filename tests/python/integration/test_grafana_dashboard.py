"""The dashboard in docs/: each metric and label that it asks for is one that is exported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from device_world import World

from memacct import _core
from memacct._convert import from_dict, to_dict
from memacct.report.prometheus import metric_families
from memacct.report.prometheus_types import Moves, Reading

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[3] / "docs"
METRIC = re.compile(r"\bmemacct_[a-z_]+")


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value:
        if isinstance(child, (dict, list)):
            yield from nodes(child)


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """The labels of each metric, of a device that tells all and of one that does not."""
    told: dict[str, set[str]] = {}
    for world in (World(foreign=((7, 5),)), World(own=None)):
        plain = to_dict(_core.snapshot(devices=None, limits=True))
        snapshot = from_dict(_core.Snapshot, {**plain, "devices": [to_dict(world.device())]})
        processes = _core.snapshot_tree(host="breakdown").processes
        reading = Reading(snapshot=snapshot, processes=processes, moves={"GPU-0": Moves()})
        for family in metric_families(reading):
            told[family.name] = set(family.labels)
    return told


def test_the_dashboard_asks_for_what_there_is(exported: dict[str, set[str]]) -> None:
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    asked = [node["expr"] for node in nodes(dashboard) if "expr" in node]
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    asked += [variables["uuid"]["definition"]]
    named = {name for text in asked for name in METRIC.findall(text)}
    assert len(named) > 20
    assert named <= set(exported)
    for node in nodes(dashboard):
        names = METRIC.findall(node.get("expr", ""))
        for label in re.findall(r"\{\{(\w+)\}\}", node.get("legendFormat", "")):
            assert all(label in exported[name] for name in names), node
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) - {"__rate_interval", "__all"}
    assert used <= set(variables)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_page_names_what_there_is(exported: dict[str, set[str]]) -> None:
    text = (DOCS / "metrics.md").read_text()
    named = set()
    for prefix, names, suffix in re.findall(r"(memacct_[a-z_]*)\{([a-z_,]+)\}([a-z_]*)", text):
        named |= {f"{prefix}{name}{suffix}" for name in names.split(",") if suffix}
    named |= {name for name in METRIC.findall(text) if not name.endswith("_")}
    unified = {f"memacct_device_{n}_bytes" for n in ("page_cache", "host_processes", "withheld")}
    named -= {"memacct_device_foreign_", *unified}
    assert named <= set(exported)
    assert set(exported) - named == set()
