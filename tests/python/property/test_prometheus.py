"""Metrics of any reading: rows that add up to the device, few of them, and no unknown as 0."""

from __future__ import annotations

from dataclasses import replace

import pytest
from device_world import OWN_PID, TREE_PID, World
from hypothesis import given
from hypothesis import strategies as st

from memacct import _core
from memacct._container import container_id
from memacct._convert import from_dict, to_dict
from memacct.report.prometheus import metric_families
from memacct.report.prometheus_types import Family, Person, Reading, Watched

SIZES = st.integers(0, 1 << 36)
FOREIGN = st.dictionaries(st.integers(2, 40), SIZES, max_size=30)
HIDING = st.dictionaries(st.integers(2, 40), st.none() | SIZES, max_size=30)
BARE = to_dict(_core.snapshot(devices=None, limits=True))
ID = "0123456789abcdef" * 4


def reading(*devices: _core.DeviceMemory, **others: object) -> Reading:
    snapshot = from_dict(_core.Snapshot, {**BARE, "devices": [to_dict(d) for d in devices]})
    return replace(Reading(snapshot=snapshot), **others)  # type: ignore[arg-type]


def told(families: tuple[Family, ...]) -> dict[str, dict[tuple[str, ...], float]]:
    return {family.name: dict(family.samples) for family in families}


def value(families: tuple[Family, ...], term: str) -> float:
    (only,) = told(families)[f"memacct_device_{term}_bytes"].values()
    return only


@given(foreign=FOREIGN, own=SIZES, tree=SIZES, most=st.integers(1, 8), watch=st.booleans())
def test_the_equation_adds_up_over_the_labels(
    foreign: dict[int, int], own: int, tree: int, most: int, watch: bool
) -> None:
    world = World(own=own, tree=tree, foreign=tuple(foreign.items()), unattributed=5)
    watched = Watched(own_pids=frozenset({OWN_PID, 7}), tree_pids=frozenset({9}))
    families = metric_families(
        reading(world.device(), watched=watched if watch else None), most_processes_count=most
    )
    rows = told(families)["memacct_device_process_bytes"]
    kept = sum(value(families, term) for term in ("free", "reserved", "unattributed"))
    assert kept + sum(rows.values()) == world.total == value(families, "total")
    for owner in ("own", "tree", "foreign"):
        by_owner = sum(size for labels, size in rows.items() if labels[2] == owner)
        assert by_owner == value(families, owner)
    assert len(rows) <= most + 3
    if watch:
        assert value(families, "own") == own + foreign.get(7, 0)
        assert value(families, "tree") == foreign.get(9, 0)


@given(foreign=HIDING, own=st.none() | SIZES, watch=st.booleans())
def test_unknown_has_no_sample_and_a_reason(
    foreign: dict[int, int | None], own: int | None, watch: bool
) -> None:
    world = World(own=own, foreign=tuple(foreign.items()))
    watched = Watched(own_pids=frozenset({OWN_PID}), tree_pids=frozenset({TREE_PID}))
    families = metric_families(reading(world.device(), watched=watched if watch else None))
    metrics = told(families)
    unknown = {what for _, what, _ in metrics.get("memacct_unknown", {})}
    hidden = None in foreign.values()
    for term, is_unknown in {
        "own": own is None,
        "foreign": hidden or (watch and own is None),
        "unattributed": hidden or own is None,
        "process": hidden or own is None,
    }.items():
        assert (f"device_{term}_bytes" in unknown) == is_unknown
        if term != "process":
            assert (f"memacct_device_{term}_bytes" in metrics) != is_unknown
    rows = metrics["memacct_device_process_bytes"]
    listed = {labels[1] for labels in rows}
    assert not listed & {str(pid) for pid, size in foreign.items() if size is None}
    assert all(why for _, _, why in metrics.get("memacct_unknown", {}))


def test_numbers_of_another_namespace_are_nobodys() -> None:
    device = World(foreign=((7, 5),)).device()
    watched = Watched(own_pids=frozenset({7}), pids_known=False)
    metrics = told(metric_families(reading(device, watched=watched)))
    assert "memacct_device_own_bytes" not in metrics
    assert {row[2] for row in metrics["memacct_device_process_bytes"]} == {"unknown"}


def test_a_reason_has_no_numbers() -> None:
    """Each other text would be another time series."""
    plain = to_dict(World(own=None).device())
    plain["attribution"]["reason"] = "pid 4711 is not listed"
    metrics = told(metric_families(reading(from_dict(_core.DeviceMemory, plain))))
    assert ("GPU-0", "device_own_bytes", "pid N is not listed") in metrics["memacct_unknown"]


def test_a_process_in_several_instances_is_one_row() -> None:
    plain = to_dict(World(own=0, foreign=((7, 5),)).device())
    plain["processes"].append({**plain["processes"][-1], "gpu_instance_id": 1})
    plain["foreign_bytes"] = 10
    families = metric_families(reading(from_dict(_core.DeviceMemory, plain)))
    rows = [
        row for row in told(families)["memacct_device_process_bytes"].items() if row[0][1] == "7"
    ]
    assert [size for _, size in rows] == [10]


def test_people_are_labels() -> None:
    person = Person(name="vllm", role="worker", container=ID)
    device = World(foreign=((7, 5),)).device()
    rows = told(metric_families(reading(device, people={7: person})))
    assert rows["memacct_device_process_bytes"]["GPU-0", "7", "foreign", "worker", "vllm", ID] == 5


def test_each_metric_has_one_set_of_labels_and_a_good_name() -> None:
    families = metric_families(reading(World(foreign=((7, 5),)).device()))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.text.endswith(".")
        assert all(len(labels) == len(family.labels) for labels, _ in family.samples)
        assert len(dict(family.samples)) == len(family.samples)
        assert (family.kind == "counter") == family.name.endswith("_total")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"/docker/{ID}", ID),
        (f"/system.slice/docker-{ID}.scope", ID),
        (f"/kubepods/burstable/pod{ID[:8]}-1111-2222-3333-{ID[:12]}/{ID}", ID),
        (f"/kubepods.slice/kubepods-podx.slice/cri-containerd-{ID}.scope/init", ID),
        (f"/k8s.io/crio-{ID}.scope", ID),
        (f"/machine.slice/libpod-{ID}.scope/container", ID),
        (f"/machine.slice/libpod-conmon-{ID}.scope", None),
        (f"/docker/{'f' * 64}/docker/{ID}", ID),
        (f"/../{ID}", ID),
        (f"/ecs/{ID[:32]}/{ID[:32]}-1234567890", f"{ID[:32]}-1234567890"),
        ("/user.slice/user-1000.slice/session-2.scope", None),
        ("/", None),
    ],
)
def test_containers_by_their_groups_names(path: str, found: str | None) -> None:
    assert container_id(f"12:cpu,cpuacct:/\n0::{path}\n") == found
    assert container_id(f"4:memory:{path}") == found


def test_no_group_is_no_container() -> None:
    assert container_id("") is None
    assert container_id("odd") is None
