"""snapshot_tree() of processes that end, hide or may not be read: none is lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from family import MIB, by_pid, family, known, process_state, wait_until

import memacct
from memacct import _convert, _core

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 64 * MIB
# What an idle Python touches or un-shares between two readings, in each process.
MARGIN = 3 * MIB
TIERS: tuple[Literal["counters", "breakdown", "rollup"], ...] = ("counters", "breakdown", "rollup")


# ---------------------------------------------------------------- what cannot be read


def test_a_zombie_holds_nothing() -> None:
    script = """
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
tell(pid)
"""
    for tier in TIERS:
        with family(script) as parent:
            pid = parent.told()
            zombie = by_pid(memacct.snapshot_tree(parent.pid, host=tier))[pid]
        assert (zombie.state, zombie.host, zombie.title) == ("zombie", None, "")
        assert zombie.name


def test_a_process_that_ends_between_the_walk_and_its_reading() -> None:
    with family(
        "pids = [child(), child()]; tell(pids); os.waitpid(pids[0], 0); tell([])"
    ) as parent:
        reaped, kept = parent.told()
        members = _core._find_members([parent.pid])
        whole = _core._read_members(members, "rollup")
        os.kill(reaped, signal.SIGKILL)
        os.kill(kept, signal.SIGKILL)
        parent.go_on()
        wait_until(lambda: process_state(kept) == "Z")
        tree = _core._read_members(members, "rollup")
    assert whole.complete
    rows = by_pid(tree)
    assert (rows[reaped].state, rows[reaped].host) == ("gone", None)
    assert rows[kept].state == "zombie"
    assert (tree.complete, tree.unread_count) == (False, 1)
    host = rows[parent.pid].host
    assert host is not None
    assert tree.pss_bytes == host.pss_bytes
    assert tree.freed_bounds_bytes is not None
    assert tree.freed_bounds_bytes[1] is None
    delta = tree - whole
    assert delta.pss_bytes is None
    assert [process.pid for process in delta.disappeared] == [reaped]
    assert [change.pid for change in delta.changed] == [parent.pid, kept]


def test_a_number_that_was_given_to_another_process_is_gone() -> None:
    (member,) = _core._find_members([os.getpid()])[:1]
    other = _convert.from_dict(
        _core.TreeMember, {**member.to_dict(), "start_ticks": member.start_ticks + 1}
    )
    tree = _core._read_members([other], "rollup")
    assert tree.processes[0].state == "gone"
    assert tree.pss_bytes is None
    assert tree.rss_bytes is None
    assert tree.freed_bounds_bytes is None


NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_process_is_read_in_part() -> None:
    reading, writing = os.pipe()
    with family("tell(child())") as parent:
        parent.told()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                tree = memacct.snapshot_tree(parent.pid)
                os.write(writing, json.dumps(tree.to_dict()).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            tree = _convert.from_dict(memacct.TreeSnapshot, json.loads(pipe.read()))
        os.waitpid(pid, 0)
    assert [process.state for process in tree.processes] == ["partial", "partial"]
    for process in tree.processes:
        assert process.reason == f"/proc/{process.pid}/smaps_rollup: Permission denied"
        assert process.host is not None
        assert process.host.tier == "breakdown"
        assert process.host.held_bytes is not None
        assert process.freed_bounds_bytes is None
    assert tree.pss_bytes is None
    assert known(tree.rss_bytes) > 0
    assert (tree.complete, tree.unread_count) == (False, 2)


# A parent that gave its rights away, and a child that has kept them and shares its pages.
HIDDEN_CHILD = f"""
import memacct, memacct._convert, memacct._tree  # all that nobody may have no right to open later
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, REC, PRIVATE_MOUNT = 0x20000, 0x4000, 1 << 18
if libc.unshare(NEWNS) or libc.mount(b"none", b"/", None, REC | PRIVATE_MOUNT, None) or \\
        libc.mount(b"proc", b"/proc", b"proc", 0, b"hidepid=1"):
    tell([os.strerror(ctypes.get_errno()), None])
block = touched({SIZE})
pid = child()
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
try:
    open(f"/proc/{{pid}}/stat").close()
except PermissionError:
    pass
else:
    tell(["this /proc hides nothing", None])
tell([None, memacct.snapshot_tree().to_dict(), str(memacct.snapshot_tree())])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a /proc")
def test_a_child_that_proc_hides_may_be_missing() -> None:
    with family(HIDDEN_CHILD) as parent:
        denied, data, *texts = parent.told()
    if denied:
        pytest.skip(f"no /proc that hides processes can be mounted: {denied}")
    tree = _convert.from_dict(memacct.TreeSnapshot, data)
    assert [process.state for process in tree.processes] == ["read"]
    assert (tree.complete, tree.unread_count) == (False, 0)
    assert "Some may be missing" in texts[0]
    # Half of the block counts here, and all of it is the child's, too: no end would free it.
    assert known(tree.pss_anon_bytes) >= SIZE // 2
    low, high = tree.freed_bounds_bytes or (None, None)
    assert known(low) <= known(tree.uss_bytes) < SIZE // 2
    assert high is None


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Lets this process open so many files more."""
    free = [os.open(os.devnull, os.O_RDONLY) for _ in range(count + 1)]
    for descriptor in free:
        os.close(descriptor)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[count], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_without_a_descriptor_to_read_with_it_is_no_matter_of_permission() -> None:
    with family("tell(child())") as parent:
        parent.told()
        for count in (0, 1):
            with pytest.raises(memacct.SourceReadError) as caught, descriptors_left(count):
                memacct.snapshot_tree(parent.pid)
            assert caught.value.errno == errno.EMFILE
            assert caught.value.source.startswith(f"/proc/{parent.pid}")


def test_descriptors_that_run_out_never_lose_a_process() -> None:
    # The search takes one at a time, and another thread has the only one now and then.
    with family("tell([child() for _ in range(20)])") as parent:
        members = [parent.pid, *parent.told()]
        done = threading.Event()

        def take_and_give() -> None:
            while not done.is_set():
                with contextlib.suppress(OSError):
                    os.close(os.open(os.devnull, os.O_RDONLY))

        thread = threading.Thread(target=take_and_give)
        try:
            with descriptors_left(1):
                thread.start()
                found = [found_or_errno(parent.pid) for _ in range(200)]
        finally:
            done.set()
            thread.join()
    for each in found:
        assert each in (errno.EMFILE, members)


def found_or_errno(pid: int) -> list[int] | int | None:
    try:
        return [member.pid for member in _core._find_members([pid])]
    except memacct.SourceReadError as error:
        return error.errno
    except memacct.SourceUnavailableError:
        return None


@pytest.mark.parametrize("tier", TIERS)
def test_a_row_tells_how_far_its_counters_may_be_off(
    tier: Literal["counters", "breakdown", "rollup"],
) -> None:
    host = memacct.snapshot_tree(host=tier).processes[0].host
    own = memacct.snapshot(host=tier).host
    assert host is not None
    assert own.rss_error_bound_bytes is not None or tier == "counters"
    assert host.rss_error_bound_bytes == own.rss_error_bound_bytes


def test_a_process_whose_main_thread_has_ended_is_read_by_another() -> None:
    script = f"""
import threading
import time
block = touched({SIZE})
threading.Thread(target=lambda: tell([])).start()
ctypes.CDLL(None).syscall({60 if os.uname().machine == "x86_64" else 93}, 0)
"""
    with family(script) as parent:
        parent.told()
        wait_until(lambda: process_state(parent.pid) == "Z")
        for tier in TIERS:
            tree = memacct.snapshot_tree(parent.pid, host=tier)
            assert tree.processes[0].state == "read"
            assert known(tree.rss_bytes) > SIZE
        tree = memacct.snapshot_tree(parent.pid)
    # It still holds its memory, so it may share it: no more is claimed than is known.
    assert known((tree.freed_bounds_bytes or (None, None))[0]) <= known(tree.uss_bytes)


@pytest.mark.skipif(process_state(2) is None, reason="no kernel thread in this pid namespace")
def test_a_kernel_thread_has_no_memory_of_its_own() -> None:
    if Path("/proc/2/comm").read_text(encoding="utf-8").strip() != "kthreadd":
        pytest.skip("process 2 is no kernel thread in this pid namespace")
    tree = memacct.snapshot_tree(2)
    assert {process.state for process in tree.processes} == {"kernel"}
    assert tree.complete
    assert (tree.rss_bytes, tree.pss_bytes) == (0, 0)
