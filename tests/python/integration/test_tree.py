"""snapshot_tree() of real processes: what is shared counts once; none is lost."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import pickle
import resource
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hugepages
import pytest
from family import MIB, family, process_state, wait_until

import memacct
from memacct import _convert, _core

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 64 * MIB
# What an idle Python touches or un-shares between two readings, in each process.
MARGIN = 3 * MIB
TIERS: tuple[Literal["counters", "breakdown", "rollup"], ...] = ("counters", "breakdown", "rollup")


def by_pid(tree: memacct.TreeSnapshot) -> dict[int, _core.ProcessMemory]:
    return {process.pid: process for process in tree.processes}


def known(value: int | None) -> int:
    assert value is not None
    return value


def status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


@contextlib.contextmanager
def file_of_a_disk() -> Iterator[Any]:
    """A file of SIZE beside this one; skips where it is in tmpfs, whose pages count as shmem."""
    with tempfile.NamedTemporaryFile(dir=Path(__file__).parent) as file:
        file.write(bytes(SIZE))
        file.flush()
        before = status_bytes("RssShmem")
        with mmap.mmap(file.fileno(), SIZE, mmap.MAP_SHARED, mmap.PROT_READ) as block:
            sum(block[offset] for offset in range(0, SIZE, mmap.PAGESIZE))
            if status_bytes("RssShmem") - before > SIZE // 2:
                pytest.skip("the checkout is in tmpfs: its files' pages count as shared memory")
        yield file


# ---------------------------------------------------------------- shared pages count once


def test_memory_that_forked_children_inherit_counts_once() -> None:
    script = f"tell([]); block = touched({SIZE}); tell([child(), child()]); tell([])"
    with family(script) as parent:
        parent.told()
        before = memacct.snapshot_tree(parent.pid)
        children = parent.go_on()
        after = memacct.snapshot_tree(parent.pid)
        assert [process.pid for process in after.processes] == [parent.pid, *children]
        assert after.complete
        assert known(after.pss_anon_bytes) - known(before.pss_anon_bytes) == pytest.approx(
            SIZE, abs=3 * MARGIN
        )
        growth = known(after.rss_bytes) - 3 * known(before.rss_bytes)
        assert growth == pytest.approx(3 * SIZE, abs=3 * MARGIN)
        # Nobody's alone, yet the end of all three frees it.
        assert known(after.uss_bytes) < SIZE
        low, high = after.freed_bounds_bytes or (None, None)
        assert low == after.pss_anon_bytes
        assert high == after.pss_bytes
        for process in after.processes:
            assert process.freed_bounds_bytes is not None
            assert known(process.freed_bounds_bytes[0]) < SIZE


@pytest.mark.parametrize(
    ("make", "term"),
    [
        (f"touched({SIZE}, SHARED)", "pss_shmem_bytes"),
        (
            "mmap.mmap(os.open({path!r}, os.O_RDONLY), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)",
            "pss_file_bytes",
        ),
    ],
)
def test_memory_that_a_child_maps_too_counts_once(make: str, term: str) -> None:
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(file_of_a_disk()).name if "{path" in make else ""
        script = f"""
block = {make.format(path=path)}
first = child()
look(block)
tell([])
second = child(lambda: look(block))
tell([first, second])
tell([])
"""
        with family(script) as parent:
            parent.told()
            before = memacct.snapshot_tree(parent.pid)
            parent.go_on()
            after = memacct.snapshot_tree(parent.pid)
    child = after.processes[2].host
    assert child is not None
    assert known(child.rss_file_bytes) + known(child.rss_shmem_bytes) > SIZE
    grown = known(getattr(after, term)) - known(getattr(before, term))
    assert grown == pytest.approx(0, abs=MARGIN)
    assert known(getattr(after, term)) >= SIZE


def test_weights_that_are_copied_are_anonymous_and_a_child_adds_nothing() -> None:
    with file_of_a_disk() as file:
        script = f"""
weights = mmap.mmap(os.open({file.name!r}, os.O_RDONLY), 0, prot=mmap.PROT_READ,
                    flags=mmap.MAP_PRIVATE)
tell([]); look(weights); tell([]); copy = bytearray(weights); tell([]); tell(child()); tell([])
"""
        with family(script) as parent:
            parent.told()
            start = memacct.snapshot_tree(parent.pid)
            parent.go_on()
            read = memacct.snapshot_tree(parent.pid)
            parent.go_on()
            copied = memacct.snapshot_tree(parent.pid)
            parent.go_on()
            shared = memacct.snapshot_tree(parent.pid)
    assert (read - start).pss_file_bytes == pytest.approx(SIZE, abs=MARGIN)
    assert (read - start).pss_anon_bytes == pytest.approx(0, abs=MARGIN)
    assert (copied - read).pss_file_bytes == pytest.approx(0, abs=MARGIN)
    assert (copied - read).pss_anon_bytes == pytest.approx(SIZE, abs=MARGIN)
    assert (shared - copied).pss_bytes == pytest.approx(0, abs=MARGIN)
    assert known((shared - copied).rss_bytes) > SIZE


def test_the_sums_are_those_of_the_rows() -> None:
    with family(f"block = touched({SIZE}); tell([child(), child()])") as parent:
        parent.told()
        tree = memacct.snapshot_tree(parent.pid)
    hosts = [process.host for process in tree.processes if process.host is not None]
    assert len(hosts) == 3
    for name in (
        *("rss_bytes", "pss_bytes", "pss_anon_bytes", "pss_file_bytes", "pss_shmem_bytes"),
        *("uss_bytes", "swap_bytes", "swap_pss_bytes"),
    ):
        assert getattr(tree, name) == sum(getattr(host, name) for host in hosts), name
    for process, host in zip(tree.processes, hosts, strict=True):
        low, high = process.freed_bounds_bytes or (None, None)
        assert known(low) <= known(host.uss_bytes) <= known(high)
        assert host.pid == process.pid


def test_a_child_in_its_parents_address_space_counts_there() -> None:
    # As between vfork() and exec, for as long as it takes: pause() on a stack of its own.
    script = f"""
block = touched({SIZE})
libc = ctypes.CDLL(None)
stack = ctypes.create_string_buffer(65536)
top = ctypes.c_void_p((ctypes.addressof(stack) + 65536) & ~15)
CLONE_VM, SIGCHLD = 0x100, 17
tell(libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), top, CLONE_VM | SIGCHLD, None))
"""
    with family(script) as parent:
        twin = parent.told()
        tree = memacct.snapshot_tree(parent.pid)
        # Asked for by itself, it is read as any other.
        alone = memacct.snapshot_tree(twin)
    assert [(p.pid, p.state) for p in tree.processes] == [(parent.pid, "read"), (twin, "shared")]
    assert tree.complete
    assert known(tree.pss_anon_bytes) == pytest.approx(SIZE, abs=MARGIN + 8 * MIB)
    assert alone.processes[0].state == "read"
    assert known(alone.pss_anon_bytes) > SIZE


def test_huge_pages_of_its_own_are_told_apart() -> None:
    script = """
try:
    block = mmap.mmap(-1, 4 << 21, flags=PRIVATE | 0x40000)  # MAP_HUGETLB
except OSError:
    tell(False)
block[0] = block[1 << 21] = 1
tell(True)
child()
tell(True)
tell([])
"""
    with hugepages.grown(4), family(script) as parent:
        if not parent.told():
            pytest.skip("the machine has no room for four huge pages")
        alone = memacct.snapshot_tree(parent.pid)
        parent.go_on()
        shared = memacct.snapshot_tree(parent.pid)
    host = alone.processes[0].host
    assert host is not None
    assert alone.private_hugetlb_bytes == host.hugetlb_bytes == 2 << 21
    assert known(alone.pss_bytes) < SIZE
    assert shared.private_hugetlb_bytes == 0


# ---------------------------------------------------------------- who belongs to the tree


def test_generations_and_programs() -> None:
    script = """
program = subprocess.Popen(["sleep", "1000"])
def grown_up():
    global grandchild
    grandchild = child()
tell([program.pid, child(grown_up)])
"""
    with family(script) as parent:
        program, child = parent.told()
        tree = memacct.snapshot_tree(parent.pid)
    rows = [(process.pid, process.parent_pid, process.depth) for process in tree.processes]
    grandchild = rows[-1][0]
    assert rows == [
        (parent.pid, os.getpid(), 0),
        (program, parent.pid, 1),
        (child, parent.pid, 1),
        (grandchild, child, 2),
    ]
    assert by_pid(tree)[program].title == "sleep 1000"
    assert by_pid(tree)[program].name == "sleep"
    assert tree.root_pids == (parent.pid,)


def test_several_roots_and_one_that_is_anothers_child() -> None:
    with family("tell(child())") as one, family("tell(child())") as other:
        child, stranger = one.told(), other.told()
        tree = memacct.snapshot_tree([one.pid, other.pid])
        assert [p.pid for p in tree.processes] == [one.pid, child, other.pid, stranger]
        assert tree.root_pids == (one.pid, other.pid)
        within = memacct.snapshot_tree((one.pid, child))
        assert [p.pid for p in within.processes] == [one.pid, child]


def test_without_a_root_it_is_this_process() -> None:
    tree = memacct.snapshot_tree()
    assert tree.root_pids == (os.getpid(),)
    mine = memacct.snapshot("rollup").host
    host = tree.processes[0].host
    assert host is not None
    assert known(host.pss_anon_bytes) == pytest.approx(known(mine.pss_anon_bytes), abs=MARGIN)


def test_a_tree_of_two_hundred_children() -> None:
    with family(f"block = touched({SIZE}); tell([child() for _ in range(200)])") as parent:
        children = parent.told()
        ticks_ns: list[int] = []
        done = threading.Event()

        def tick() -> None:
            while not done.wait(0.001):
                ticks_ns.append(time.monotonic_ns())

        clock = threading.Thread(target=tick)
        clock.start()
        tree = memacct.snapshot_tree(parent.pid)
        done.set()
        clock.join()
    # Other threads run meanwhile: it is read without the GIL.
    assert any(tree.taken_ns < tick_ns < tree.taken_ns + tree.span_ns for tick_ns in ticks_ns)
    assert {p.pid for p in tree.processes} == {parent.pid, *children}
    assert tree.processes_count == 201
    assert tree.complete
    assert known(tree.rss_bytes) > 201 * SIZE
    assert SIZE < known(tree.pss_anon_bytes) < SIZE + 201 * MARGIN


def test_a_tree_that_changes_while_it_is_read() -> None:
    script = """
import threading
def churn():
    while True:
        subprocess.run(["true"])
for _ in range(2):
    threading.Thread(target=churn, daemon=True).start()
keeps = child()
tell(keeps)
"""
    states = set()
    with family(script) as parent:
        keeps = parent.told()
        for _ in range(100):
            tree = memacct.snapshot_tree(parent.pid)
            rows = by_pid(tree)
            assert {rows[pid].state for pid in (parent.pid, keeps)} == {"read"}
            states |= {process.state for process in tree.processes}
            assert tree.complete or tree.unread_count > 0
            # A child between vfork and exec would show its parent's memory again.
            for process in tree.processes:
                if process.name == "true" and process.host is not None:
                    assert process.host.rss_bytes < 8 * MIB
    assert states <= {"read", "gone", "zombie", "shared"}


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


# ---------------------------------------------------------------- what its end frees


def test_a_root_that_shares_with_processes_outside_claims_only_what_is_its_own() -> None:
    # A forked child of this test shares its pages, here a block that it inherits.
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        for offset in range(0, SIZE, mmap.PAGESIZE):
            block[offset] = 1
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        try:
            tree = memacct.snapshot_tree(pid)
        finally:
            os.close(writing)
            os.close(reading)
            os.waitpid(pid, 0)
    assert known(tree.pss_anon_bytes) >= SIZE // 2
    low, _ = tree.freed_bounds_bytes or (None, None)
    assert known(low) <= known(tree.uss_bytes) < SIZE // 2


def memory_group() -> Path | None:
    """A folder of the memory controller in which a group can be made."""
    for folder in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        if (folder / "memory.stat").exists() and os.access(folder, os.W_OK):
            return folder
    return None


def charged_anon_bytes(group: Path) -> int:
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(stat.get("rss", stat.get("anon", 0)))


def test_the_kernel_frees_what_is_told_for_the_tree() -> None:
    folder = memory_group()
    if folder is None:
        pytest.skip("no memory control group can be made here")
    group = folder / f"memacct-tree-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text("")
    except OSError as error:
        pytest.skip(f"no memory control group can be made here: {error}")
    script = f"""
open({str(group / "cgroup.procs")!r}, "w").write(str(os.getpid()))
block = touched({SIZE})
tell([child(), child()])
"""
    try:
        if not (group / "memory.stat").exists():
            pytest.skip("groups here have no memory controller")
        with family(script) as parent:
            parent.told()
            low, high = memacct.snapshot_tree(parent.pid).freed_bounds_bytes or (None, None)
            before = charged_anon_bytes(group)
        wait_until(lambda: not (group / "cgroup.procs").read_text())
        freed = before - charged_anon_bytes(group)
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()
    # What was touched before it joined the group is not charged here; charges are batched.
    assert known(low) >= SIZE
    assert SIZE - MARGIN <= freed <= known(high) + MARGIN
    assert known(low) - freed < 16 * MIB


# ---------------------------------------------------------------- roles


@pytest.mark.parametrize(
    ("title", "role", "rank"),
    [
        ("VLLM::EngineCore", "engine_core", None),
        ("VLLM::EngineCore_DP1", "engine_core", "DP1"),
        ("VLLM::Worker", "worker", None),
        ("VLLM::Worker_PP1_TP0", "worker", "PP1_TP0"),
        ("VLLM::APIServer_0", "api_server", "0"),
    ],
)
def test_a_running_process_is_recognised_by_its_title(
    title: str, role: str, rank: str | None
) -> None:
    script = f'tell(subprocess.Popen([{title!r}, "9"], executable="sleep").pid)'
    with family(script) as parent:
        pid = parent.told()
        row = by_pid(memacct.snapshot_tree(parent.pid))[pid]
    assert (row.role, row.rank) == (role, rank)
    assert row.title.startswith(title)


def test_a_zombie_is_recognised_by_its_name() -> None:
    script = """
PR_SET_NAME = 15
def work():
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"VLLM::EngineCore_DP0", 0, 0, 0)
pid = child(work)
tell(pid)
tell([])
"""
    with family(script) as parent:
        pid = parent.told()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: process_state(pid) == "Z")
        row = by_pid(memacct.snapshot_tree(parent.pid))[pid]
    assert (row.name, row.state, row.role) == ("VLLM::EngineCor", "zombie", "engine_core")


def test_the_helpers_of_multiprocessing_are_recognised() -> None:
    script = """
import multiprocessing
context = multiprocessing.get_context("forkserver")
pool = context.Pool(1)
pool.apply(os.getpid)
tell([])
tell([])
"""
    with family(script) as parent:
        parent.told()
        tree = memacct.snapshot_tree(parent.pid)
    roles = [process.role for process in tree.processes]
    assert roles[0] == "python"
    assert {"resource_tracker", "fork_server"} <= set(roles)


def test_a_name_and_a_title_of_any_bytes() -> None:
    script = """
name = b"caf\\xc3\\xa9 (1) R\\xff"
def work():
    ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
title = b"line\\nbreak \\xff\\xfe"
program = subprocess.Popen([title, "9"], executable="sleep")
tell([child(work), program.pid])
tell([])
"""
    with family(script) as parent:
        named, titled = parent.told()
        tree = memacct.snapshot_tree(parent.pid)
    assert by_pid(tree)[named].name == "café (1) R\ufffd"
    assert by_pid(tree)[titled].title == "line break \ufffd\ufffd 9"
    assert json.loads(json.dumps(tree.to_dict()))["processes_count"] == 3


# ---------------------------------------------------------------- psutil


def test_each_process_is_as_psutil_reads_it() -> None:
    psutil = pytest.importorskip("psutil")
    script = f"""
block = touched({SIZE})
shared = touched({SIZE}, SHARED)
tell([child(), child(lambda: look(shared))])
"""
    with family(script) as parent:
        parent.told()
        tree = memacct.snapshot_tree(parent.pid)
        assert {p.pid for p in psutil.Process(parent.pid).children(recursive=True)} == {
            process.pid for process in tree.processes[1:]
        }
        for process in tree.processes:
            check_against(psutil.Process(process.pid), process.pid)


def check_against(theirs: Any, pid: int) -> None:
    """Ours is as psutil's before and after it, once these two are equal.

    The pages of libraries that a process shares with others count less as those come.
    """
    for _ in range(50):
        before = theirs.memory_full_info()
        host = memacct.snapshot_tree(pid).processes[0].host
        if theirs.memory_full_info() == before:
            break
    else:
        pytest.fail("psutil never read the same twice")
    assert host is not None
    assert (host.uss_bytes, host.pss_bytes) == (before.uss, before.pss)
    assert (host.vms_bytes, host.swap_bytes) == (before.vms, before.swap)
    assert (host.rss_bytes, host.shared_bytes) == (before.rss, before.shared)


# ---------------------------------------------------------------- arguments and data


def test_a_process_that_is_not_there_is_named() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(ValueError, match=f"there is no process {pid}"):
        memacct.snapshot_tree(pid)


def test_a_thread_is_told_from_a_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(
            ValueError, match=f"{thread.native_id} is a thread of process {os.getpid()}"
        ):
            memacct.snapshot_tree(thread.native_id)
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("pid", [0, -1, 2**31, 2**80])
def test_a_number_that_no_process_has(pid: int) -> None:
    with pytest.raises(ValueError, match=f"no process has the number {pid}"):
        memacct.snapshot_tree(pid)


@pytest.mark.parametrize("pid", ["1", 1.0, True, [None], [[1]]])
def test_what_is_no_number(pid: object) -> None:
    with pytest.raises(TypeError, match="pid must be an int, a sequence of ints or None"):
        memacct.snapshot_tree(pid)  # type: ignore[arg-type]


def test_no_roots_and_no_tier() -> None:
    with pytest.raises(ValueError, match="empty"):
        memacct.snapshot_tree([])
    with pytest.raises(ValueError, match="host must be one of 'counters', 'breakdown', 'rollup'"):
        memacct.snapshot_tree(host="mappings")  # type: ignore[arg-type]


def test_the_cheaper_tiers_know_less() -> None:
    counters = memacct.snapshot_tree(host="counters")
    assert known(counters.rss_bytes) > 0
    assert counters.swap_bytes is None
    breakdown = memacct.snapshot_tree(host="breakdown")
    assert breakdown.swap_bytes is not None
    for tree in (counters, breakdown):
        assert tree.complete
        assert (tree.pss_bytes, tree.uss_bytes, tree.freed_bounds_bytes) == (None, None, None)


def test_it_survives_pickle_and_json() -> None:
    tree = memacct.snapshot_tree()
    assert pickle.loads(pickle.dumps(tree)) == tree  # noqa: S301 (our own bytes)
    data = json.loads(json.dumps(tree.to_dict()))
    assert _convert.from_dict(memacct.TreeSnapshot, data) == tree


def test_the_table_adds_up() -> None:
    with family(f"block = touched({SIZE}); tell([child(), child()])") as parent:
        parent.told()
        tree = memacct.snapshot_tree(parent.pid)
    lines = str(tree).splitlines()
    assert lines[0].split()[:5] == ["pid", "process", "state", "rss", "pss"]
    rows = [[float(cell) for cell in line.split()[-7:]] for line in lines[1:5]]
    for column in zip(*rows, strict=True):
        assert column[-1] == pytest.approx(sum(column[:-1]), abs=0.21)
    # anon, file and shmem are the parts of pss
    for row in rows:
        assert row[1] == pytest.approx(sum(row[2:5]), abs=0.21)
    assert sys.executable[:20] in lines[1]


def test_the_table_shows_what_is_not_known() -> None:
    (member,) = _core._find_members([os.getpid()])[:1]
    other = _convert.from_dict(_core.TreeMember, {**member.to_dict(), "start_ticks": 1})
    text = str(_core._read_members([other], "rollup"))
    assert "gone" in text
    assert "1 not read in full: the sums are lower bounds." in text


def test_a_process_that_appeared() -> None:
    with family("tell([]); tell(child()); tell([])") as parent:
        parent.told()
        before = memacct.snapshot_tree(parent.pid)
        child = parent.go_on()
        after = memacct.snapshot_tree(parent.pid)
    delta = after - before
    assert [process.pid for process in delta.appeared] == [child]
    assert delta.disappeared == ()
    assert [change.pid for change in delta.changed] == [parent.pid]
    assert delta.rss_bytes == known(after.rss_bytes) - known(before.rss_bytes)
    assert delta.elapsed_ns > 0
    with pytest.raises(TypeError):
        _ = after - 1  # type: ignore[operator]


def test_two_trees_have_no_difference() -> None:
    with family("tell([])") as one, family("tell([])") as other:
        one.told()
        other.told()
        trees = memacct.snapshot_tree(one.pid), memacct.snapshot_tree(other.pid)
    named = [
        f"pid {tree.processes[0].pid} (started at tick {tree.processes[0].start_ticks})"
        for tree in trees
    ]
    with pytest.raises(ValueError, match="these are of two trees") as caught:
        _ = trees[0] - trees[1]
    assert str(caught.value) == f"these are of two trees, of {named[0]} and of {named[1]}"


def test_a_root_whose_number_was_given_to_another_process_is_another_root() -> None:
    tree = memacct.snapshot_tree()
    data = tree.to_dict()
    data["processes"][0]["start_ticks"] += 1
    later = _convert.from_dict(memacct.TreeSnapshot, json.loads(json.dumps(data)))
    with pytest.raises(ValueError, match="these are of two trees"):
        _ = later - tree
    assert (tree - tree).pss_bytes == 0
