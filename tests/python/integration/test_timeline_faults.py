"""What fails beneath a timeline is counted and logged, and never raised into the program."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from timeline_child import Child

import memacct

# Names of the package are imported when they are looked up first, which opens files.
LOOK_UP = """
memacct.checkpoint, memacct.span, memacct.Timeline, memacct.SourceError, memacct.read_timeline
"""
# A process that has no descriptor left, and gives them back. Logging is not imported yet.
EXHAUST = (
    LOOK_UP
    + """
import resource
def exhaust():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        return taken
def give_back(taken):
    for fd in taken:
        os.close(fd)
"""
)


def test_a_first_checkpoint_without_descriptors_is_counted_and_tried_again(tmp_path: Path) -> None:
    script = """
assert "logging" not in sys.modules
taken = exhaust()
memacct.checkpoint("not read")
with memacct.span("not read either"):
    pass
give_back(taken)
memacct.checkpoint("read")
timeline = memacct.current_timeline()
report([timeline.missed_count, [entry.name for entry in timeline.entries], str(timeline)])
"""
    with Child(EXHAUST + script, tmp_path) as child:
        missed, names, text = child.report()
        child.end()
    assert (missed, names) == (2, ["baseline", "read"])
    assert "2 entries could not be read" in text
    assert len(memacct.read_timeline(tmp_path).records) == 1


def test_a_forked_child_without_descriptors_goes_on_once_it_has_some(tmp_path: Path) -> None:
    script = """
memacct.checkpoint("parent")
pid = os.fork()
if pid == 0:
    taken = exhaust()
    memacct.checkpoint("not read")
    with memacct.span("not read either"):
        pass
    give_back(taken)
    memacct.checkpoint("read")
    timeline = memacct.current_timeline()
    report([timeline.missed_count, [entry.name for entry in timeline.entries]])
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    with Child(EXHAUST + script, tmp_path) as child:
        assert child.report() == [2, ["baseline", "read"]]
        child.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot is for root")
def test_without_proc_a_program_runs_as_before(tmp_path: Path) -> None:
    script = f"""
import logging
logging.basicConfig()
os.chroot({str(tmp_path)!r})
os.chdir("/")
for number in range(3):
    memacct.checkpoint("nothing to read")
with memacct.span("nothing to read"):
    pass
try:
    memacct.Timeline().start()
except memacct.SourceError:
    report("explicit")
"""
    with Child(LOOK_UP + script) as child:
        assert child.report() == "explicit"
        errors = child.end()
    assert errors.count("no timeline could be started") == 1


def test_a_working_directory_that_is_gone_costs_the_file_only(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"""
import logging
os.chdir({str(gone)!r})
os.rmdir({str(gone)!r})
memacct.checkpoint("kept")
timeline = memacct.current_timeline()
report([[entry.name for entry in timeline.entries], timeline.lost_count])
"""
    with Child(script, Path("relative")) as child:
        assert child.report() == [["baseline", "kept"], 2]
        assert "could not be written" in child.end()


def test_a_path_that_cannot_be_looked_at_costs_the_file_only() -> None:
    too_long = "x" * 300
    with memacct.Timeline(f"/{too_long}/timeline.jsonl", breakdown=False) as timeline:
        timeline.checkpoint("kept")
        assert timeline.path is None
        assert timeline.lost_count == 2
    assert [entry.name for entry in timeline.entries] == ["baseline", "kept", "end"]


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is for root")
def test_a_folder_of_another_user_costs_the_file_only(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    script = f"""
os.setuid(65534)
with memacct.Timeline({str(closed / "timelines")!r}, breakdown=False) as timeline:
    timeline.checkpoint("kept")
    report([timeline.path, timeline.lost_count])
"""
    with Child(LOOK_UP + script) as child:
        assert child.report() == [None, 2]
        child.end()
