"""Rules about the host: what limits its memory, and what its kernel lets us see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._units import GIB, format_bytes
from memacct.doctor._types import finding, note, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct._core import CgroupMemory
    from memacct.doctor._facts import Host, Machine
    from memacct.doctor._types import Finding

# NCCL's guide asks for --shm-size=1g; Docker gives a container 64 MiB.
_SHM_BYTES = GIB
_SMALL_ROOM_BYTES = 2 * GIB
_STALLED_RATIO = 0.05
_FEW_FILES = 4096


def host_findings(machine: Machine) -> Iterator[Finding]:
    """Yields what there is to say of the host's memory, its limits and its kernel."""
    host = machine.host
    yield from _cgroup(host)
    yield from _system(host)
    yield from _shared_memory(host)
    yield from _limits(host)
    yield from _features(host)
    yield from _access(host)
    yield from _namespace(machine)


def _cgroup(host: Host) -> Iterator[Finding]:
    group, binding = host.cgroup, host.binding
    if group is None:
        yield note(
            "host.cgroup",
            "no control group of this process is mounted here",
            why="a limit on its memory may be there and cannot be seen",
            fix="mount /sys/fs/cgroup",
        )
    else:
        yield _group_levels(group)
        yield from _group_events(group)
    if binding is None or binding.headroom_bytes is None:
        return
    where = binding.headroom_path or "the machine's memory"
    small = binding.headroom_bytes < _SMALL_ROOM_BYTES
    yield finding(
        "warning" if small else "ok",
        "host.room",
        f"{format_bytes(binding.headroom_bytes)} more host memory can be taken; what binds is "
        f"{where}",
        why="an engine's start copies weights through host memory" if small else "",
        fix="raise the limit, or end what holds the memory: memacct snap says who" if small else "",
    )


def _group_levels(group: CgroupMemory) -> Finding:
    limited = sum(level.limit_bytes is not None for level in group.levels)
    many = f"{len(group.levels)} level{'s' if len(group.levels) != 1 else ''}"
    if group.limit_bytes is None:
        text = f"control group v{group.version}, {many}, none limits: {group.path}"
    else:
        text = (
            f"control group v{group.version}, {many}, {limited} with a limit; "
            f"{format_bytes(group.limit_bytes)} at {group.limit_path} binds"
        )
    if group.hidden_limit_bytes is not None:
        return warning(
            "host.cgroup",
            f"{text}; a level above what is mounted here limits to "
            f"{format_bytes(group.hidden_limit_bytes)}",
            why="its usage cannot be seen, so how much room is left is unknown",
        )
    return ok("host.cgroup", text)


def _group_events(group: CgroupMemory) -> Iterator[Finding]:
    killed = group.events.oom_kill_count if group.events else None
    if killed:
        yield warning(
            "host.killed",
            f"{killed} process{'es' if killed != 1 else ''} of this control group ended for lack "
            "of memory since it was made",
            why="an engine whose worker was killed looks as if it had crashed",
            fix="memacct record keeps what a process held until then (docs/blackbox.md)",
        )
    if group.high_bytes is not None:
        yield note(
            "host.high",
            f"memory.high is {format_bytes(group.high_bytes)}",
            why="above it the kernel slows the processes down instead of refusing memory",
        )


def _system(host: Host) -> Iterator[Finding]:
    system = host.system
    if system is None:
        return
    if system.swap_total_bytes:
        taken = system.swap_total_bytes - (system.swap_free_bytes or 0)
        yield note(
            "host.swap",
            f"swap: {format_bytes(taken)} of {format_bytes(system.swap_total_bytes)} in use",
            why="what is swapped out is in no RSS; memacct shows it apart",
        )
    else:
        yield ok("host.swap", "no swap: what does not fit into memory ends a process")
    if system.hugetlb_bytes:
        yield note(
            "host.hugetlb",
            f"hugetlb pools hold {format_bytes(system.hugetlb_bytes)}",
            why="they are in neither RSS nor MemAvailable, used or not",
            source="sglang#38208",
        )
    stalled = system.pressure.some_avg60_ratio if system.pressure else 0.0
    if stalled > _STALLED_RATIO:
        yield warning(
            "host.pressure",
            f"processes waited for memory {stalled:.0%} of the last minute",
            why="readings of this machine's timing, and an engine's start, are slowed by it",
        )


def _shared_memory(host: Host) -> Iterator[Finding]:
    if host.shm_bytes is None:
        yield warning(
            "host.shm",
            "there is no /dev/shm",
            why="engines with several processes and NCCL pass data through it",
            fix="mount a tmpfs at /dev/shm",
        )
        return
    small = host.shm_bytes < _SHM_BYTES
    yield finding(
        "warning" if small else "ok",
        "host.shm",
        f"/dev/shm has {format_bytes(host.shm_bytes)}, "  # noqa: S108 (its name)
        f"{format_bytes(host.shm_free_bytes or 0)} free",
        why="tensor parallel engines and NCCL end with a bus error where it is full"
        if small
        else "",
        fix="docker run --shm-size=1g (or more), or --ipc=host" if small else "",
        source="NCCL user guide, Troubleshooting: Shared memory" if small else "",
    )


def _limits(host: Host) -> Iterator[Finding]:
    space, locked, files = (
        host.limits.get(name) for name in ("RLIMIT_AS", "RLIMIT_MEMLOCK", "RLIMIT_NOFILE")
    )
    if space is not None:
        yield problem(
            "host.address_space",
            f"the address space is limited to {format_bytes(space)} (ulimit -v)",
            why="CUDA reserves address space for all of the GPUs' and the host's memory at its "
            "start, and fails under such a limit",
            fix="ulimit -v unlimited",
        )
    if locked is not None:
        yield note(
            "host.locked",
            f"at most {format_bytes(locked)} may be locked (ulimit -l)",
            why="RDMA (InfiniBand, KV transfer) registers memory under this limit; CUDA's own "
            "pinned memory does not count",
            fix="docker run --ulimit memlock=-1, if the engine uses RDMA",
        )
    if files is not None and files < _FEW_FILES:
        yield note(
            "host.files",
            f"at most {files} files may be open (ulimit -n)",
            why="an API server needs one a connection, and each loaded library some",
            fix="ulimit -n 65536",
        )
    if host.files.get("overcommit") == "2":
        yield warning(
            "host.overcommit",
            "vm.overcommit_memory is 2: the kernel counts reserved memory as taken",
            why="CUDA and allocators reserve far more than they use, and are refused although "
            "memory is free",
            fix="sysctl vm.overcommit_memory=0",
            source="kernel: mm/overcommit-accounting",
        )


def _features(host: Host) -> Iterator[Finding]:
    lacking = []
    if not host.rollup:
        lacking.append("smaps_rollup (PSS and USS; Linux 4.14)")
    if not host.residency:
        lacking.append("PROCMAP_QUERY and PAGEMAP_SCAN (fast per-mapping readings; Linux 6.11)")
    if not host.pagemap:
        lacking.append("a readable /proc/self/pagemap")
    yield finding(
        "note" if lacking else "ok",
        "kernel.features",
        f"Linux {host.kernel}: lacks {'; '.join(lacking)}"
        if lacking
        else f"Linux {host.kernel}: smaps_rollup, PROCMAP_QUERY, PAGEMAP_SCAN and pagemap are here",
        why="memacct reads what is left, and says which tier a number came from" if lacking else "",
    )
    pages = host.files.get("huge_pages") or ""
    if "[always]" in pages:
        yield note(
            "kernel.huge_pages",
            "transparent huge pages are always used",
            why="RSS grows in steps of 2 MiB, also for memory that is touched sparsely",
            source="kernel: admin-guide/mm/transhuge",
        )


def _access(host: Host) -> Iterator[Finding]:
    if host.hidepid not in ("", "0", "off"):
        yield warning(
            "kernel.hidepid",
            f"/proc is mounted with hidepid={host.hidepid}",
            why="other users' processes have no name here, and a tree's sums may be incomplete",
            fix="run as root, or in the group of the mount's gid= option",
        )
    if host.init_state == "denied":
        yield note(
            "kernel.access",
            "other users' processes cannot be read (their smaps and status are refused)",
            why="neighbours are told by the driver's list alone, without their host memory",
            fix="as root, or with CAP_SYS_PTRACE, all can be read",
        )
    scope = host.files.get("ptrace_scope")
    if scope not in (None, "0"):
        yield ok(
            "kernel.ptrace_scope",
            f"Yama's ptrace_scope is {scope}: it keeps debuggers from attaching, not memacct from "
            "reading",
        )


def _namespace(machine: Machine) -> Iterator[Finding]:
    process = machine.gpus.driver["process"]
    if process["initial_pid_namespace"]:
        yield ok("processes.namespace", "this is the machine's own PID namespace")
    else:
        outer = ", ".join(map(str, process["outer_pids"]))
        yield note(
            "processes.namespace",
            "this is a PID namespace of its own (a container)",
            why="the driver may number processes otherwise, or not list those outside: "
            + (f"outside this process is {outer}" if outer else "its number outside is not told"),
            fix="--pid=host shows everybody, by the numbers that all know",
        )
        number, reason = machine.broker
        if number is None:
            yield note(
                "processes.broker",
                f"no broker tells this process its number outside: {reason}",
                why="with drivers up to 530 an engine must then allocate to find itself",
                fix="memacct broker on the host, its folder mounted here (docs/attribution.md)",
            )
    if machine.broker[0] is not None:
        yield ok(
            "processes.broker",
            f"a broker says that this process is pid {machine.broker[0]} outside",
        )
