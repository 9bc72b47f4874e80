"""Timelines of several processes joined to one tree, from lines with known answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import memacct
from memacct._timeline_read import is_alive, parse_timelines
from memacct._timeline_records import MergedTimeline
from memacct._units import MIB
from memacct.report.startup_tree import start_tree

if TYPE_CHECKING:
    from pathlib import Path

    from memacct.report.startup_types import StartTree, TreeNode

S = 1_000_000_000
MACHINE = "one"


class Written:
    """The lines of one process; times in seconds, memory in MiB."""

    def __init__(self, pid: int, name: str, parent_pid: int, **header: Any) -> None:
        self.pid, self.id = pid, f"id{pid}"
        self.lines: list[dict[str, Any]] = [
            {
                "id": self.id,
                "kind": "start",
                "schema": 1,
                "pid": pid,
                "start_ticks": 1,
                "started_ns": 0,
                "started_wall_ns": 0,
                "name": name,
                "command": "python",
                "machine": MACHINE,
                "parent_id": None,
                "parent_pid": parent_pid,
                "host": "breakdown",
                **header,
            }
        ]
        self.open: list[int] = []

    def add(
        self,
        kind: str,
        name: str,
        at: float,
        anon: int,
        *,
        file: int = 0,
        own: int | None = None,
        **more: Any,
    ) -> None:
        index = len(self.lines) - 1
        span = self.open.pop() if kind == "span_end" else self.open[-1] if self.open else None
        devices = None if own is None else [{"uuid": "GPU-1", "own_bytes": own * MIB}]
        anon_bytes, file_bytes = anon * MIB, file * MIB
        if kind == "baseline":
            self.lines[0] |= {"started_ns": int(at * S), "started_wall_ns": int(at * S)}
        host = {
            "vms_bytes": 1 << 40,
            "rss_bytes": anon_bytes + file_bytes,
            "rss_anon_bytes": anon_bytes,
            "rss_file_bytes": file_bytes,
            "rss_shmem_bytes": 0,
        }
        line = {
            "id": self.id,
            "index": index,
            "kind": kind,
            "name": name,
            "depth": len(self.open),
            "span": span,
            "thread": self.pid,
            "taken_ns": int(at * S),
            "host": host,
            "devices": devices,
            **more,
        }
        self.lines.append(line)
        if kind == "span_begin":
            self.open.append(index)

    def begin(self, *args: Any, **kwargs: Any) -> None:
        self.add("span_begin", *args, **kwargs)

    def end(self, *args: Any, **kwargs: Any) -> None:
        self.add("span_end", *args, **kwargs)


def tree_of(*written: Written, **kwargs: Any) -> StartTree:
    raw = [json.dumps(line).encode() for each in written for line in each.lines]
    records, torn_count = parse_timelines(raw, "test")
    records.sort(key=lambda record: record.started_wall_ns)
    return start_tree(MergedTimeline(records=tuple(records), torn_count=torn_count), **kwargs)


def shape(node: TreeNode) -> Any:
    name = f"[{node.name}]" if node.kind == "process" else node.name
    return (name, [shape(child) for child in node.children]) if node.children else name


def engine(*, killed: bool = False, worker_parent: int = 2) -> tuple[Written, ...]:
    """Main waits for the core, which waits for its worker twice."""
    main, core = Written(1, "main", 0), Written(2, "EngineCore", 1)
    worker = Written(3, "Worker 0", worker_parent)
    main.add("baseline", "baseline", 0, 100)
    main.begin("wait", 1, 100)
    core.add("baseline", "baseline", 2, 50)
    core.begin("core", 2, 50)
    core.begin("executor", 3, 50)
    worker.add("baseline", "baseline", 4, 30, file=10)
    worker.begin("load", 4, 30, file=10)
    if not killed:
        worker.end("load", 5, 40, file=210, own=500)
        core.end("executor", 6, 50)
        core.begin("profile", 6, 50)
        worker.begin("run", 7, 40, file=210, own=500)
        worker.end("run", 8, 50, file=210, own=700)
        worker.add("checkpoint", "up", 8.5, 50, file=210, own=700, now_bytes=260 * MIB)
        core.end("profile", 9, 55)
        core.end("core", 10, 60)
        main.end("wait", 11, 100)
    return main, core, worker


def test_a_process_is_below_the_span_that_waited_for_each_of_its_steps() -> None:
    tree = tree_of(*engine())
    assert [shape(root) for root in tree.roots] == [
        (
            "[main]",
            [
                (
                    "wait",
                    [
                        (
                            "[EngineCore]",
                            [
                                (
                                    "core",
                                    [
                                        ("executor", [("[Worker 0]", ["load"])]),
                                        ("profile", [("[Worker 0]", ["run", "up"])]),
                                    ],
                                )
                            ],
                        )
                    ],
                )
            ],
        )
    ]


def test_a_worker_that_a_third_process_started_is_below_the_core() -> None:
    shapes = [shape(root) for root in tree_of(*engine(worker_parent=99)).roots]
    assert shapes == [shape(root) for root in tree_of(*engine()).roots]


def test_a_step_beyond_all_spans_of_who_waited_is_at_its_process() -> None:
    main, core, worker = engine()
    worker.begin("late", 10.5, 50)
    worker.end("late", 10.6, 50)
    tree = tree_of(main, core, worker)
    (of_core,) = [child for child in tree.find("wait").children if child.kind == "process"]
    assert [shape(child) for child in of_core.children[1:]] == [("[Worker 0]", ["late"])]


def test_each_step_tells_what_changed_and_what_there_is() -> None:
    tree = tree_of(*engine())
    load = tree.find("load")
    assert (load.begin_ns, load.end_ns) == (4 * S, 5 * S)
    assert load.begin.rss_bytes == 40 * MIB
    assert load.end.rss_bytes == 250 * MIB
    assert load.delta.rss_bytes == 210 * MIB
    assert load.delta.file_bytes == 200 * MIB
    assert load.delta.anon_bytes == 10 * MIB
    assert load.delta.own_device_bytes == 500 * MIB  # it had no context before
    run = tree.find("run")
    assert run.delta.own_device_bytes == 200 * MIB
    assert run.own_device_ratio == pytest.approx(200 / 700)
    assert run.cumulative.rss_bytes == 220 * MIB
    executor = tree.find("executor")
    assert executor.delta.own_device_bytes is None  # never read there: not 0


def test_a_killed_process_is_told_with_where_it_was() -> None:
    tree = tree_of(*engine(killed=True), is_alive=lambda record: record.pid != 3)
    states = {account.name: account.state for account in tree.processes}
    assert states == {"main": "open", "EngineCore": "open", "Worker 0": "ended"}
    worker = tree.processes[-1]
    assert worker.open_spans == ("load",)
    assert worker.holds is None
    assert tree.find("load").end_ns is None
    assert "Worker 0 (process 3): was killed or failed in load" in str(tree)
    assert "no end" in str(tree)


def test_the_check_of_each_process_is_told() -> None:
    (worker,) = [each for each in tree_of(*engine()).processes if each.pid == 3]
    assert worker.holds is True
    assert worker.state == "started"
    assert "equal" in str(tree_of(*engine()))


def test_an_error_that_left_a_step_is_told_and_is_where_the_process_failed() -> None:
    main = Written(1, "main", 0)
    main.add("baseline", "baseline", 0, 100)
    main.begin("wait", 1, 100)
    main.end("wait", 2, 100, error="ValueError")
    tree = tree_of(main)
    assert tree.find("wait").error == "ValueError"
    assert "main (process 1): failed with ValueError in wait" in str(tree)


def test_notes_are_told_in_the_units_that_their_names_say() -> None:
    main = Written(1, "main", 0)
    main.add("baseline", "baseline", 0, 100)
    notes = {"file_bytes": 3 * MIB, "own_cpu_ns": 1_500_000, "tensors_count": 7, "of": "x"}
    main.add("checkpoint", "here", 1, 100, notes=notes)
    text = str(tree_of(main))
    for said in ("file 3.00 MiB", "own_cpu 1.5 ms", "7 tensors", "of x"):
        assert said in text


def test_it_is_plain_data() -> None:
    data = tree_of(*engine()).as_data()
    assert json.loads(json.dumps(data)) == json.loads(json.dumps(data))
    assert data["tree"][0]["children"][0]["name"] == "wait"
    assert [process["name"] for process in data["processes"]] == ["main", "EngineCore", "Worker 0"]


def test_nothing_recorded_is_an_empty_tree() -> None:
    tree = start_tree(MergedTimeline(records=(), torn_count=0))
    assert (tree.roots, str(tree)) == ((), "no timeline")


def test_a_name_cannot_write_to_the_terminal() -> None:
    main = Written(1, "main\x1b[2J", 0)
    main.add("baseline", "baseline", 0, 100)
    main.add("checkpoint", "a\x1b[2Jb", 1, 100, notes={"n\x1b": "\x1b"})
    assert "\x1b" not in str(tree_of(main))


CHILD = """
import sys, memacct
timeline = memacct.Timeline(sys.argv[1] + "/", name="child").start()
print("ready", flush=True)
sys.stdin.read()
"""


def test_whether_a_process_runs_is_known_of_this_machine_only(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ),
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        (record,) = memacct.read_timeline(tmp_path).records
        assert record.parent_pid == os.getpid()
        assert is_alive(record) is True
        child.kill()
    assert is_alive(record) is False
    elsewhere = tree_of(*engine())  # of a machine named "one"
    assert elsewhere.processes[0].state == "open"
