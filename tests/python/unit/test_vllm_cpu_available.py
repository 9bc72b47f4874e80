"""What a CPU worker may take: the node and the control group both limit it, cache counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from memacct import _convert, _core
from memacct._units import GIB
from memacct.integrations.vllm import _cpu_available
from memacct.integrations.vllm._cpu_available import (
    Available,
    cache_left_out,
    room_within,
    usable,
    wait_until_it_fits,
)

if TYPE_CHECKING:
    from pathlib import Path


def room(limit: int | None, usage: int | None, cache: int = 0) -> int | None:
    """The room in one group."""
    level = {"path": "/", "limit_bytes": limit, "usage_bytes": usage, "active_file_bytes": cache}
    group = {"version": 2, "path": "/", "levels": [level]}
    return room_within(_convert.from_dict(_core.CgroupMemory, group))


def test_a_small_node_limits_in_a_large_pod() -> None:
    assert usable(10 * GIB, room(400 * GIB, 5 * GIB)) == 10 * GIB


def test_a_pod_limits_on_a_large_node() -> None:
    assert usable(200 * GIB, room(100 * GIB, 5 * GIB)) == 95 * GIB


def test_page_cache_is_room_but_never_more_than_the_limit() -> None:
    assert room(100 * GIB, 60 * GIB, 50 * GIB) == 90 * GIB
    assert room(100 * GIB, 60 * GIB, 61 * GIB) == 100 * GIB


def test_a_group_over_its_limit_has_no_room() -> None:
    assert room(8 * GIB, 9 * GIB) == 0
    assert usable(10 * GIB, 0) == 0


def test_a_group_whose_usage_is_unknown_has_at_most_its_limit() -> None:
    assert room(5 * GIB, None) == 5 * GIB


@pytest.mark.parametrize("usage", [5, None])
def test_a_group_without_limit_says_nothing(usage: int | None) -> None:
    assert room(None, usage) is None
    assert usable(7, None) == 7
    assert room_within(None) is None


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("memory_", "memory.", 1)).write_text(text)


def test_a_nested_scope_limits_on_a_large_node(tmp_path: Path) -> None:
    top = tmp_path / "sys/fs/cgroup"
    write(tmp_path / "proc/self", cgroup="0::/pod/scope\n")
    mount = "35 31 0:32 / /sys/fs/cgroup rw,relatime shared:5 - cgroup2 cgroup2 rw\n"
    write(tmp_path / "proc/self", mountinfo=mount)
    stat = f"inactive_file {GIB}\nactive_file {GIB}\n"
    for path, limit, usage in (("pod", 90, 12), ("pod/scope", 8, 3)):
        write(
            top / path,
            memory_max=f"{limit * GIB}\n",
            memory_current=f"{usage * GIB}\n",
            memory_stat=stat,
        )
    group = _core.read_cgroup(str(tmp_path))
    assert usable(100 * GIB, room_within(group)) == 7 * GIB


V2 = {"memory_max": "100\n", "memory_stat": "anon 9\ninactive_file 30\nactive_file 10\n"}
V1 = {"memory_stat": "inactive_file 1\ntotal_inactive_file 30\ntotal_active_file 10\n"}


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_cpu_available, "CGROUP_ROOT", tmp_path)
    return tmp_path


def host(usage: int | None) -> SimpleNamespace:
    return SimpleNamespace(get_cgroup_memory_usage=lambda: usage)


@pytest.mark.parametrize(("folder", "files"), [("", V2), ("memory", V1)], ids=["v2", "v1"])
def test_the_host_sees_its_groups_usage_without_cache(
    top: Path, folder: str, files: dict[str, str]
) -> None:
    write(top / folder, **files)
    module = host(95)
    original = module.get_cgroup_memory_usage
    with cache_left_out(module):
        assert module.get_cgroup_memory_usage() == 55
    assert module.get_cgroup_memory_usage is original


def test_usage_is_never_negative_and_stays_unknown(top: Path) -> None:
    write(top, **V2)
    for usage, seen in ((25, 0), (None, None)):
        module = host(usage)
        with cache_left_out(module):
            assert module.get_cgroup_memory_usage() == seen


@pytest.mark.usefixtures("top")
def test_usage_is_the_hosts_own_where_the_cache_is_not_told() -> None:
    module = host(95)
    with cache_left_out(module):
        assert module.get_cgroup_memory_usage() == 95


def test_a_host_without_the_function_is_let_be() -> None:
    module = SimpleNamespace()
    with cache_left_out(module):
        assert vars(module) == {}


class Neighbour:
    """Frees its memory after some readings; pausing moves a clock by hand."""

    def __init__(self, *node_bytes: int) -> None:
        self.node_bytes = list(node_bytes)
        self.paused_s: list[float] = []
        self.said: list[int] = []

    def read(self) -> Available:
        many = len(self.node_bytes) > 1
        node = self.node_bytes.pop(0) if many else self.node_bytes[0]
        return Available(node_bytes=node, group_bytes=None, stock_bytes=node)

    def pause(self, seconds: float) -> float:
        self.paused_s.append(seconds)
        return seconds

    def wait(self, wanted_bytes: int, wait_s: float) -> tuple[int, float]:
        found, waited_s = wait_until_it_fits(
            self.read,
            wanted_bytes,
            wait_s=wait_s,
            pause=self.pause,
            say=lambda found: self.said.append(found.usable_bytes),
            poll_s=0.25,
        )
        return found.usable_bytes, waited_s


def test_it_reads_again_until_it_fits() -> None:
    neighbour = Neighbour(5, 6, 10, 99)
    assert neighbour.wait(10, wait_s=60) == (10, 0.5)
    assert neighbour.said == [5]


def test_after_the_wait_it_takes_what_there_is() -> None:
    neighbour = Neighbour(5, 6)
    assert neighbour.wait(10, wait_s=0.6) == (6, 0.6)
    assert neighbour.paused_s == pytest.approx([0.25, 0.25, 0.1])


@pytest.mark.parametrize(("wanted", "wait_s"), [(5, 60.0), (10, 0.0)])
def test_it_does_not_wait_when_it_fits_or_must_not(wanted: int, wait_s: float) -> None:
    neighbour = Neighbour(5, 99)
    assert neighbour.wait(wanted, wait_s) == (5, 0.0)
    assert neighbour.said == neighbour.paused_s == []
