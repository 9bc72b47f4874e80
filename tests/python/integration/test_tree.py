"""snapshot_tree() of real processes: what is shared counts once; what their end frees."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hugepages
import pytest
from family import MIB, by_pid, family, known, wait_until

import memacct

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 64 * MIB
# What an idle Python touches or un-shares between two readings, in each process.
MARGIN = 3 * MIB
TIERS: tuple[Literal["counters", "breakdown", "rollup"], ...] = ("counters", "breakdown", "rollup")


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
