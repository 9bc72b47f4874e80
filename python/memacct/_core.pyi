"""The native core. Quantities are bytes or nanoseconds; None is "unknown", never 0."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, final

import numpy as np
import pandas as pd

from memacct._mapping_delta import MappingsDelta
from memacct._tree import TreeDelta
from memacct._types import SnapshotDelta

__version__: str

HostTier = Literal["counters", "breakdown", "rollup", "residency", "mappings"]
LimitSource = Literal["machine", "cgroup", "cgroup_high", "cgroup_memsw"]
AttributionSource = Literal["pid", "nspid", "fingerprint", "broker", "allocator_bound", "none"]

# ---------------------------------------------------------------- host

@final
class HostMemory:
    """This process's memory as the kernel accounts it.

    counters: vms, rss, shared (statm). breakdown adds what /proc/self/status has.
    rollup adds /proc/self/smaps_rollup (exact, walks the page tables). residency adds
    rss_exact. mappings adds what rollup does but for pss by kind, from /proc/self/smaps, and has
    held and reclaimable exactly.
    """

    tier: HostTier
    pid: int
    vms_bytes: int
    rss_bytes: int
    # The most by which rss_bytes can be off while the process stands still: the kernel counts in
    # batches, per CPU (since 6.2) or thread. 0: it sums them up when asked (since 6.16, 6.15.7,
    # 6.12.39); None: unknown kernel, or its threads were not counted. rss_exact_bytes is what it
    # really is, where the pages themselves were looked at.
    rss_error_bound_bytes: int | None
    shared_bytes: int | None
    rss_anon_bytes: int | None
    rss_file_bytes: int | None
    rss_shmem_bytes: int | None
    swap_bytes: int | None
    hugetlb_bytes: int | None
    locked_bytes: int | None
    pinned_bytes: int | None
    peak_rss_bytes: int | None
    peak_vms_bytes: int | None
    page_tables_bytes: int | None
    held_bytes: int | None  # anonymous, shmem, hugetlb; with rollup also file pages surely dirty
    reclaimable_bytes: int | None  # page cache; rss = held - hugetlb + reclaimable
    rss_exact_bytes: int | None
    pss_bytes: int | None
    pss_anon_bytes: int | None
    pss_file_bytes: int | None
    pss_shmem_bytes: int | None
    uss_bytes: int | None
    shared_clean_bytes: int | None
    shared_dirty_bytes: int | None
    private_clean_bytes: int | None
    private_dirty_bytes: int | None
    anonymous_bytes: int | None
    swap_pss_bytes: int | None
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> HostMemory: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class Pressure:
    """Pressure stall information: the part of the time in which tasks waited for memory.

    some: at least one task; full: all that were not idle at once. Linux >= 4.20.
    """

    some_avg10_ratio: float  # 0..1, of the last 10, 60 and 300 s
    some_avg60_ratio: float
    some_avg300_ratio: float
    some_stalled_ns: int  # since boot, or since the group was made
    full_avg10_ratio: float | None
    full_avg60_ratio: float | None
    full_avg300_ratio: float | None
    full_stalled_ns: int | None
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> Pressure: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class CgroupEvents:
    """How often a control group met its limits, since it was made.

    v2 (memory.events) counts what happened in the group or below. v1 tells oom_kill
    (memory.oom_control) and max (memory.failcnt), of the group alone.
    """

    low_count: int | None  # reclaimed although below memory.low
    high_count: int | None  # throttled above memory.high
    max_count: int | None  # about to exceed the limit
    oom_count: int | None  # at the limit, and nothing was left to reclaim
    oom_kill_count: int | None  # processes killed, under any level's limit
    oom_group_kill_count: int | None  # Linux >= 5.17
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> CgroupEvents: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class CgroupLevel:
    """One control group on the way from the process's own to the topmost that is visible.

    A limit that is None does not limit.
    """

    path: str
    limit_bytes: int | None
    high_bytes: int | None  # memory.high (v2): above it the kernel throttles
    usage_bytes: int | None
    inactive_file_bytes: int | None
    active_file_bytes: int | None
    working_set_bytes: int | None  # usage - inactive_file, as cAdvisor and the kubelet count
    uncached_usage_bytes: int | None  # less active_file too, as Ray's memory monitor counts
    swap_usage_bytes: int | None  # swapped out, so not in usage
    swap_limit_bytes: int | None  # memory.swap.max (v2): of swap alone
    memsw_limit_bytes: int | None  # v1: of memory and swap together
    memsw_usage_bytes: int | None  # read only under a limit
    room_bytes: int | None  # until the first of its limits, if page cache makes way
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> CgroupLevel: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class CgroupMemory:
    """Memory limit and usage of this process's control group, both of the level that binds.

    That is the level with the least room: limit - usage + page cache. One whose usage is
    unknown counts with its whole limit. Without a limit, usage is that of the own group. Only
    hard limits count here; ``Snapshot.limits`` weighs memory.high and the machine too.
    """

    version: int  # 1 or 2
    path: str  # the group of this process, as /proc/self/cgroup names it
    limit_path: str | None  # the level whose limit binds; None: no level limits
    limit_bytes: int | None  # None: unlimited
    high_bytes: int | None  # the smallest of all levels
    usage_bytes: int | None
    inactive_file_bytes: int | None
    active_file_bytes: int | None
    working_set_bytes: int | None  # this and the next two: see CgroupLevel
    uncached_usage_bytes: int | None
    swap_usage_bytes: int | None
    hidden_limit_bytes: int | None  # v1: a smaller limit, of a level above what the mount shows
    levels: tuple[CgroupLevel, ...]  # from the own group upwards
    pressure: Pressure | None  # of levels[0]; None: v1, or PSI is off
    events: CgroupEvents | None  # of levels[0]
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> CgroupMemory: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class NumaNode:
    """One NUMA node. The nodes' totals may be less than the machine's (balloons, hotplug)."""

    node: int
    total_bytes: int
    free_bytes: int
    inactive_file_bytes: int | None
    active_file_bytes: int | None
    anon_bytes: int | None
    shmem_bytes: int | None
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> NumaNode: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class HugetlbPool:
    """The hugetlb pages of one size; reserved ones are promised, but still among the free."""

    page_bytes: int
    total_count: int  # surplus pages included
    free_count: int
    reserved_count: int
    surplus_count: int
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> HugetlbPool: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class SystemMemory:
    """The machine: /proc/meminfo, pressure, NUMA nodes, hugetlb pools.

    available is the kernel's estimate of what new work may take without swapping. hugetlb
    pools are part of total, and their free pages no part of available.
    """

    total_bytes: int
    free_bytes: int
    available_bytes: int | None
    cached_bytes: int | None  # page cache, with shmem
    shmem_bytes: int | None
    dirty_bytes: int | None
    swap_total_bytes: int | None
    swap_free_bytes: int | None
    hugetlb_bytes: int | None  # pools of every size
    # None: this kernel has none (or PSI is off), or it is not permitted
    pressure: Pressure | None
    nodes: tuple[NumaNode, ...] | None
    hugetlb_pools: tuple[HugetlbPool, ...] | None  # by page size
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> SystemMemory: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class MemoryLimits:
    """Which of all limits on this process's memory counts: its groups' and the machine's.

    The smallest limit and the least room may be of different levels. memory.high counts as a
    limit ("cgroup_high"), since the kernel slows down what is above it; v1's limit of memory
    and swap together is "cgroup_memsw". Swap is room for nothing here. A limit above what is
    visible from this process counts only where v1 tells it.
    """

    effective_limit_bytes: int | None
    effective_limit_source: LimitSource | None
    effective_limit_path: str | None  # None: the machine, or above what the mount shows
    headroom_bytes: int | None  # of a group limit - usage + page cache; of the machine available
    headroom_source: LimitSource | None
    headroom_path: str | None
    headroom_known: bool  # False: some usage is unknown, and headroom only an upper bound
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> MemoryLimits: ...
    def to_dict(self) -> dict[str, Any]: ...

def read_host(tier: HostTier = "breakdown") -> HostMemory:
    """Reads this process. SourceUnavailableError: a kernel without smaps_rollup (< 4.14)."""

def read_cgroup(root: str = "", pid: int = 0) -> CgroupMemory | None:
    """Reads the control group of process ``pid``, 0: of this one.

    None if it is in none that a mount shows, or if there is no such process. ``root`` is put
    before every path, for tests. Opens five or six files a level: 100-300 us.
    """

def read_system(root: str = "") -> SystemMemory:
    """Reads the machine's memory; what is not there of pressure, nodes, pools is left out."""

def find_limits(cgroup: CgroupMemory | None, system: SystemMemory | None) -> MemoryLimits:
    """Returns what binds. Pure."""

# The parsers behind them, for tests. Each raises SourceFormatError and nothing else.

@final
class Statm:
    vms_bytes: int
    rss_bytes: int
    shared_bytes: int
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> Statm: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class Status:
    vms_bytes: int
    rss_bytes: int
    rss_anon_bytes: int | None
    rss_file_bytes: int | None
    rss_shmem_bytes: int | None
    swap_bytes: int | None
    hugetlb_bytes: int | None
    locked_bytes: int | None
    pinned_bytes: int | None
    peak_rss_bytes: int | None
    peak_vms_bytes: int | None
    page_tables_bytes: int | None
    thread_count: int | None
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> Status: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class SmapsRollup:
    rss_bytes: int
    pss_bytes: int
    shared_clean_bytes: int
    shared_dirty_bytes: int
    private_clean_bytes: int
    private_dirty_bytes: int
    pss_anon_bytes: int | None
    pss_file_bytes: int | None
    pss_shmem_bytes: int | None
    anonymous_bytes: int | None
    swap_pss_bytes: int | None
    private_hugetlb_bytes: int | None
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> SmapsRollup: ...
    def to_dict(self) -> dict[str, Any]: ...

def parse_statm(text: bytes, page_bytes: int) -> Statm: ...
def parse_status(text: bytes) -> Status: ...
def parse_smaps_rollup(text: bytes) -> SmapsRollup: ...
def parse_meminfo(text: bytes) -> SystemMemory: ...
def parse_node_meminfo(text: bytes, node: int, source: str) -> NumaNode: ...
def parse_number_list(text: bytes, source: str) -> list[int]: ...
def parse_pressure(text: bytes, source: str) -> Pressure: ...
def parse_hugepages_name(name: bytes, source: str) -> int: ...
def parse_cgroup_number(text: bytes, source: str) -> int | None: ...
def parse_cgroup_events(text: bytes, source: str) -> CgroupEvents: ...
def rss_error_bound(
    kernel_release: str, cpu_count: int, page_bytes: int, thread_count: int | None = None
) -> int | None: ...
def host_from_status(status: Status) -> HostMemory: ...
def host_from_rollup(status: Status, rollup: SmapsRollup) -> HostMemory: ...
def host_from_mappings(status: Status, mappings: Mappings) -> HostMemory: ...
def read_status() -> Status: ...

# ---------------------------------------------------------------- mappings

MappingKind = Literal[
    "heap",
    "stack",
    "anon",
    "named_anon",
    "file",
    "library",
    "shmem",
    "dev_shm",
    "hugetlb",
    "device",
    "special",
]
MAPPING_KINDS: tuple[MappingKind, ...]  # a row's ``kind`` is an index into it
VM_FLAGS: dict[str, int]  # code of two letters -> its bit in a row's ``vm_flags``

@final
class Mapping:
    """One mapping. A size is None if the source of the mappings does not tell it."""

    start: int
    end: int
    offset: int
    inode: int
    dev_major: int
    dev_minor: int
    perms: str
    kind: MappingKind
    path: str | None
    deleted: bool
    vm_flags: tuple[str, ...] | None
    vms_bytes: int | None
    kernel_page_bytes: int | None
    mmu_page_bytes: int | None
    rss_bytes: int | None
    pss_bytes: int | None
    pss_dirty_bytes: int | None
    shared_clean_bytes: int | None
    shared_dirty_bytes: int | None
    private_clean_bytes: int | None
    private_dirty_bytes: int | None
    referenced_bytes: int | None
    anonymous_bytes: int | None
    ksm_bytes: int | None
    lazy_free_bytes: int | None
    anon_huge_bytes: int | None
    shmem_huge_bytes: int | None
    file_huge_bytes: int | None
    shared_hugetlb_bytes: int | None
    private_hugetlb_bytes: int | None
    swap_bytes: int | None
    swap_pss_bytes: int | None
    locked_bytes: int | None
    held_bytes: int | None
    reclaimable_bytes: int | None
    _fields: ClassVar[tuple[str, ...]]
    def to_dict(self) -> dict[str, Any]: ...

@final
class MappingTotals:
    """The sums of several mappings; None where the source does not tell a size."""

    name: str  # of a kind or of a file
    mappings_count: int
    vms_bytes: int | None
    rss_bytes: int | None
    pss_bytes: int | None
    pss_dirty_bytes: int | None
    shared_clean_bytes: int | None
    shared_dirty_bytes: int | None
    private_clean_bytes: int | None
    private_dirty_bytes: int | None
    referenced_bytes: int | None
    anonymous_bytes: int | None
    ksm_bytes: int | None
    lazy_free_bytes: int | None
    anon_huge_bytes: int | None
    shmem_huge_bytes: int | None
    file_huge_bytes: int | None
    shared_hugetlb_bytes: int | None
    private_hugetlb_bytes: int | None
    swap_bytes: int | None
    swap_pss_bytes: int | None
    locked_bytes: int | None
    held_bytes: int | None
    reclaimable_bytes: int | None
    dirty_bytes: int | None
    _fields: ClassVar[tuple[str, ...]]
    def to_dict(self) -> dict[str, Any]: ...

@final
class Mappings:
    """Every mapping of a process, by address; ``str()`` is a table by kind and by file.

    A sequence of ``Mapping``. ``rows`` is the same as one read-only structured array,
    shape (n,): start, end, offset, inode, dev_major, dev_minor, path_index (into ``paths``, -1:
    none), kind (into MAPPING_KINDS), perms (bits: 1 read, 2 write, 4 execute, 8 shared), deleted,
    vm_flags (bits, see VM_FLAGS), thp_eligible, protection_key, and every size of smaps in bytes.
    What the kernel, or the source, does not tell is not in its dtype.

    held_bytes is what only this process (or swap) can give back: anonymous, shmem, hugetlb,
    dirty file, locked and device pages. reclaimable_bytes is the rest of rss: clean page cache,
    and what was freed lazily. rss = held - hugetlb + reclaimable, of each mapping.
    """

    source: Literal["smaps", "pagemap"]  # pagemap: vms, kernel_page and rss only
    pid: int
    paths: tuple[str, ...]
    unread_fields: tuple[str, ...]  # fields of smaps that this memacct does not know
    columns: dict[str, list[Any]]  # as ``rows``, without numpy; kind is its name
    _fields: ClassVar[tuple[str, ...]]
    @property
    def rows(self) -> np.ndarray[Any, Any]: ...
    def by_kind(self) -> dict[str, MappingTotals]:
        """Sums by kind, by rss, largest first."""

    def by_file(self) -> dict[str, MappingTotals]:
        """Sums by path, by rss, largest first; a deleted file's name ends in " (deleted)"."""

    def top(self, n: int = 10, by: str = "rss_bytes") -> tuple[Mapping, ...]:
        """The n mappings with the most of a size. ValueError: a size that is not known here."""

    def to_pandas(self) -> pd.DataFrame:
        """A row a mapping, kind and path as text. ImportError without pandas."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Mapping: ...
    def __sub__(self, other: Mappings) -> MappingsDelta: ...
    @staticmethod
    def _make(values: Sequence[Any]) -> Mappings: ...
    def to_dict(self) -> dict[str, Any]: ...

def read_mappings(pid: int = 0) -> Mappings:
    """Reads /proc/<pid>/smaps; 0: this process. Walks the page tables, 10 ms per GiB.

    Raises SourceUnavailableError (no such process, not permitted, no memory of its own),
    SourceReadError, SourceFormatError.
    """

def parse_smaps(text: bytes, chunk_bytes: int = 32768, mountinfo: bytes | None = None) -> Mappings:
    """The parser behind it, fed in pieces; without mountinfo, kinds and held are not set."""

def read_residency(pid: int = 0) -> Mappings | None:
    """Reads what of each mapping is resident, without smaps: 5 ms per GiB and 1 us a mapping.

    By PROCMAP_QUERY (Linux 6.11) and PAGEMAP_SCAN (6.7); None where the kernel does not offer
    both, or a mapping's name is longer than PATH_MAX. On a process that stands still the rows
    and their rss_bytes are those of smaps; the other sizes are None. Raises as read_mappings.
    """

# Its parts, for tests.

def read_residency_from(pid: int, maps_fd: int, pagemap_fd: int) -> Mappings | None: ...
def join_regions(
    mappings: Sequence[tuple[int, int]], scans: Sequence[Sequence[tuple[int, int]]]
) -> list[int]: ...

# ---------------------------------------------------------------- device

@final
class ProcessUsage:
    """One process in the driver's list of a device."""

    pid: int  # as the driver numbers it, which may be another namespace's number
    process_used_bytes: int | None
    # "unknown": it cannot be told which records are ours, or our tree's, so this may be one
    owner: Literal["own", "tree", "foreign", "unknown"]
    kinds: tuple[str, ...]  # of "compute", "graphics", "mps"
    gpu_instance_id: int | None  # the MIG instance where it runs; None where MIG is off
    compute_instance_id: int | None
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> ProcessUsage: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class Attribution:
    """How this process's record was found, and how sure its number is."""

    source: AttributionSource
    own_pid: int | None  # the driver's number for this process, once known
    own_bounds_bytes: tuple[int | None, int | None]  # (low, high), both inclusive
    reason: str  # why no better rung applied; "" when the first did
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> Attribution: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class UnifiedMemory:
    """What a GPU shares with its host's kernel, as each source tells it, side by side.

    "integrated" (GB10, Jetson), of the whole machine: total = free + withheld + page cache + host
    processes + own + tree + foreign + unattributed. "coherent" (GH200), of the device's NUMA node:
    page cache and host processes are part of unattributed.
    """

    kind: Literal["integrated", "coherent"]
    numa_node: int | None  # of the device's memory, when coherent
    host_total_bytes: int | None  # MemTotal
    host_free_bytes: int | None  # MemFree: what is physically free
    host_available_bytes: int | None  # MemAvailable
    cuda_free_bytes: int | None  # cuMemGetInfo; when integrated always asked for
    cuda_total_bytes: int | None
    free_source: Literal["cuda", "host_available", "host_free"] | None  # the least of the three
    withheld_bytes: int | None  # physically free, but not free to a GPU
    page_cache_bytes: int | None  # of files, without shared memory: charged to nobody
    host_processes_bytes: int | None  # anonymous and shared memory of all processes
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> UnifiedMemory: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class DeviceMemory:
    """One consistent reading of a device.

    When every term is known: total = free + reserved + own + tree + foreign + unattributed, to
    the byte. On an integrated GPU nothing is reserved, and the terms of ``unified`` are added.
    """

    uuid: str
    index: int | None  # NVML's
    cuda_ordinal: int | None  # this process's, when its driver is initialised
    name: str
    source: Literal["nvml_v2", "nvml_v1", "cuda", "unified"]  # of total, free and device_used
    taken_ns: int
    span_ns: int
    total_bytes: int
    free_bytes: int
    device_used_bytes: int | None  # by all processes, without what the driver reserves
    reserved_bytes: int | None
    own_bytes: int | None
    tree_bytes: int | None  # descendants and registered siblings of this process
    foreign_bytes: int | None  # the listed others; None where the list hides a number
    unattributed_bytes: int | None  # signed; in use, and in nobody's listed number
    cuda_free_bytes: int | None  # cuMemGetInfo, when asked for and a context is live
    cuda_total_bytes: int | None
    processes: tuple[ProcessUsage, ...]
    attribution: Attribution
    consistent: bool  # the collects agreed: all values held at one instant
    attempts_count: int
    own_read_bounds_bytes: tuple[int, int] | None  # smallest and largest own seen, when torn
    unified: UnifiedMemory | None  # None: the device's memory is its own
    virtualized: str | None  # a quota hook's file name: total, free and CUDA's are its numbers
    foreign_read_bounds_bytes: tuple[int, int] | None  # contain foreign at the memory's reading
    parent_uuid: str | None  # of a MIG instance: its GPU, whose bytes include these
    # Of the caching allocator that was joined (None: there was none). own = non_torch + reserved.
    allocator_reserved_bytes: int | None  # as it claims
    non_torch_bytes: int | None  # signed: negative if it claims what this process does not hold
    allocator_inconsistent: bool | None  # it claims more than the driver says is held
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> DeviceMemory: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class DeviceInfo:
    """A GPU as NVML lists it, or a MIG instance of one."""

    uuid: str  # "GPU-..." or "MIG-..."
    index: int | None  # of a GPU
    name: str
    pci_bus_id: str | None
    parent_uuid: str | None  # of an instance: its GPU
    gpu_instance_id: int | None
    compute_instance_id: int | None
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> DeviceInfo: ...
    def to_dict(self) -> dict[str, Any]: ...

DeviceKey = int | str

def list_devices() -> tuple[DeviceInfo, ...]: ...
def read_devices(
    which: Literal["auto", "all"] | Sequence[DeviceKey] = "auto",
    *,
    allocator_reserved: dict[str, int] | None = None,
    with_cuda: bool = False,
) -> tuple[DeviceMemory, ...]: ...
def read_device(
    device: DeviceKey, *, allocator_reserved_bytes: int | None = None, with_cuda: bool = False
) -> DeviceMemory: ...
def identify(device: DeviceKey) -> Attribution:
    """Finds this process's record by the active rung too (fingerprint), and remembers it."""

def forget_identity() -> None: ...
def add_tree_root(pid: int) -> None: ...
def driver_state() -> Literal["absent", "uninitialised", "initialised"]: ...
def driver_diagnosis() -> dict[str, Any]: ...
def close_devices() -> None: ...

# The pure rules behind a device reading, for their tests.
_Rows = Sequence[tuple[int, int | None]]  # (pid, bytes) of each listed process

def _probe_stride(
    written: bytes,
    *,
    capacity_bytes: int,
    count: int,
    total_bytes: int | None = None,
    mig_enabled: bool | None = None,
) -> int | None: ...
def _merge_instances(
    rows: Sequence[tuple[int, int | None, int | None]],  # the last: its MIG instance
) -> list[tuple[int, int | None, int | None]]: ...
def _merge_by_pid(rows: _Rows) -> list[tuple[int, int | None]]: ...
def _find_own(
    rows: _Rows,
    *,
    pid: int,
    outer_pids: Sequence[int] = ...,
    initial_namespace: bool = False,
    remembered_pid: int | None = None,
    driver_unused: bool = False,
    context_live: bool | None = None,
    reserved_bytes: int | None = None,
    mig_enabled: bool | None = False,
    numbers_ours: bool | None = None,
    broker_pid: int | None = None,
) -> tuple[AttributionSource, int | None, int | None, str]: ...
def _refutes_memory(rows: _Rows, *, remembered_pid: int, context_live: bool | None) -> bool: ...
def _parse_broker_answer(message: bytes) -> tuple[int | None, str]: ...
def _interpret_memory(
    *, total: int, reserved: int, free: int, used: int
) -> tuple[int | None, int | None]: ...
def _fingerprint_vote(
    steps: Sequence[tuple[_Rows, _Rows, int]], steps_left: int = 0
) -> tuple[int | None, bool]: ...  # who leads far enough, whether anybody still can
def _visible_devices(value: str, uuids: Sequence[str]) -> list[int]: ...
def _same_device(
    *,
    cuda_uuid: bytes,  # 16 of them; b"": the driver does not tell
    cuda_pci: str | None,
    nvml_uuid: str,
    nvml_pci: str | None,
    mig_enabled: bool | None = None,
) -> bool: ...
def _read_repeatedly(which: Literal["auto", "all"] | Sequence[DeviceKey], rounds: int) -> int: ...
def _parse_stat(text: str) -> tuple[str, int, int] | None: ...
def _parse_integrated(
    meminfo: str, *, cuda_free_bytes: int | None = None, cuda_total_bytes: int | None = None
) -> tuple[UnifiedMemory, int | None, int | None]:
    """Returns the reading, its free_bytes and its device_used_bytes."""

def _read_coherent(numa_node: int, root: str = "") -> UnifiedMemory: ...
def _is_integrated_capability(major: int, minor: int) -> bool: ...

# ---------------------------------------------------------------- snapshot

@final
class AllocatorPool:
    """A part of an allocator's account: a size class, or a private pool (of a graph, a MemPool)."""

    name: str  # "small", "large"; a private pool's id, "0_1"
    reserved_bytes: int
    allocated_bytes: int | None
    active_bytes: int | None
    requested_bytes: int | None
    inactive_split_bytes: int | None
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> AllocatorPool: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class AllocatorMemory:
    """A caching allocator's own account of a device, by its counters.

    requested <= allocated <= active <= reserved = active + cached. ``memacct.fragmentation()``
    says what of it could be given back, which takes a walk over all segments.
    """

    uuid: str
    reserved_bytes: int  # claimed to be held from the driver
    allocated_bytes: int  # of it, in blocks that the program holds
    peak_reserved_bytes: int | None
    peak_allocated_bytes: int | None
    cuda_ordinal: int | None
    backend: str | None  # "native", "cudaMallocAsync"
    active_bytes: int | None  # allocated, and freed but still in use by a stream
    requested_bytes: int | None  # of allocated, before it was rounded up
    cached_bytes: int | None  # reserved, and in no live block
    # Of cached, the rest of segments that live blocks are in: it cannot be given back. None where
    # segments may be expandable, which the allocator's counter leaves out.
    inactive_split_bytes: int | None
    fragmentation_ratio: float | None  # inactive_split / cached; None: nothing is cached
    unmapped_bytes: int | None  # of reserved, with no memory behind it: pools that sleep
    # Of reserved, what certainly is this process's device memory: without pools that may have
    # allocators of their own. None: all of it. It bounds own_bytes where the driver does not tell.
    backed_bytes: int | None
    segments_count: int | None  # pieces held from the driver, expandable ones not among them
    retries_count: int | None  # times that the cache was flushed to serve a request
    ooms_count: int | None  # out-of-memory errors thrown
    pools: tuple[AllocatorPool, ...] | None  # small, large; None: not told
    private_pools: (
        tuple[AllocatorPool, ...] | None
    )  # whose bytes are in those of small and large, too
    def __init__(
        self,
        uuid: str,
        reserved_bytes: int,
        allocated_bytes: int,
        peak_reserved_bytes: int | None = None,
        peak_allocated_bytes: int | None = None,
    ) -> None: ...
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> AllocatorMemory: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class Snapshot:
    """All sources, read at one barrier. Immutable; attributes convert when they are read."""

    taken_ns: int  # CLOCK_MONOTONIC at the first reading
    span_ns: int  # from the first reading to the last
    pid: int
    host: HostMemory
    mappings: Mappings | None  # with the tiers 'residency' and 'mappings'
    cgroup: CgroupMemory | None
    system: SystemMemory | None
    limits: MemoryLimits | None  # which limit of cgroup and system binds
    devices: tuple[DeviceMemory, ...] | None
    torch: tuple[AllocatorMemory, ...] | None
    def __sub__(self, before: Snapshot, /) -> SnapshotDelta: ...
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> Snapshot: ...
    def to_dict(self) -> dict[str, Any]: ...

def snapshot(
    host: HostTier = "breakdown",
    devices: Literal["auto", "all"] | Sequence[DeviceKey] | None = "auto",
    *,
    limits: bool | None = None,
) -> Snapshot:
    """Reads all sources at one barrier; ``help(memacct.snapshot)`` says all."""

# ---------------------------------------------------------------- sampler

@final
class StreamCounts:
    """What happened in one of a sampler's threads so far."""

    taken_count: int  # deadlines at which it was read
    missed_count: int  # that passed unserved: the machine was busy, or a reading took long
    skipped_count: int  # that were left out to keep to the budget of driver time
    error_count: int  # readings that failed
    read_ns: int  # wall time in readings
    cpu_ns: int  # CPU time of the thread
    late_max_ns: int  # the latest that it was woken after a deadline
    period_ns: int  # as asked for; 0: nothing is sampled
    period_in_effect_ns: int  # between the last sample and the next, of the devices
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> StreamCounts: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class NativeSampler:
    """What ``memacct.Sampler`` is made of; capacities are powers of two, a period of 0 is none."""

    def __init__(
        self,
        host_period_ns: int,
        host: HostTier,
        host_capacity: int,
        device_period_ns: int,
        devices: Literal["auto", "all"] | Sequence[DeviceKey],
        device_capacity: int,
        driver_budget_ratio: float,
        record: str | None = None,
        sync_period_ns: int = 0,
    ) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def state(self) -> Literal["new", "running", "stopped", "forked"]: ...
    def started_ns(self) -> int: ...
    def host_counts(self) -> StreamCounts: ...
    def device_counts(self) -> StreamCounts: ...
    def errors(self) -> dict[str, Any]: ...  # counts by kind, and "last"
    def devices(self) -> list[tuple[str, str, int | None]]: ...  # uuid, name, index
    def rows(self) -> dict[str, Any]: ...
    _fields: ClassVar[tuple[str, ...]]

# ---------------------------------------------------------------- recordings

def parse_recording(data: bytes, source: str) -> dict[str, Any]: ...
def is_being_recorded(path: str) -> bool: ...

@final
class NativeRecorder:
    """A flight recorder that is written to record by record. Capacities are powers of two.

    Each write returns the record's number in its ring, from 1; 0 in a forked child, where nothing
    is written. `kind` is a place in ``_trace.NOTE_KINDS``.
    """

    def __init__(
        self, path: str, host_capacity: int, device_capacity: int, sync_period_ns: int = 0
    ) -> None: ...
    def write_host(self, host: HostMemory, taken_ns: int) -> int: ...
    def write_note(self, taken_ns: int, kind: int, number: int, value: int, text: str) -> int: ...
    def keep_note(self, taken_ns: int, kind: int, number: int, value: int, text: str) -> bool: ...
    def sync(self) -> int: ...  # 0, or the errno
    def finish(self) -> None: ...
    @property
    def path(self) -> str: ...
    _fields: ClassVar[tuple[str, ...]]

# ---------------------------------------------------------------- process tree

ProcessState = Literal["read", "partial", "denied", "gone", "zombie", "kernel", "shared"]
_Bounds = tuple[int | None, int | None]  # (low, high), both inclusive

@final
class TreeMember:
    """A process as it was found; pid and start time name it for ever."""

    pid: int
    parent_pid: int
    start_ticks: int  # since boot
    depth: int  # 0: asked for; 1: a child of one, ...
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> TreeMember: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class ProcessMemory:
    """The memory of any process, and how far reading it came.

    state: "read"; "partial" (smaps_rollup is denied or not there: host.tier says what was read);
    "denied"; "gone" (ended before or while it was read); "zombie" (ended, holds nothing);
    "kernel" (a kernel thread); "shared" (runs in its parent's address space, counted there).
    """

    pid: int
    parent_pid: int
    start_ticks: int
    depth: int
    state: ProcessState
    reason: str  # the file and its error, where one tells
    name: str  # the command, at most 15 bytes
    title: str  # its arguments, or the title it gave itself
    role: str | None  # engine_core, worker, api_server, ..., python, shell
    rank: str | None  # "DP0", "PP1_TP0", "0": what follows the role in the title
    host: HostMemory | None
    private_hugetlb_bytes: int | None  # its end gives them back to their pool
    # What its end frees at once of the pages that it maps. Low: anonymous pages that it alone
    # maps; high: pss. In between: page cache and shmem of its own, which stay for now. Swap,
    # hugetlb and the kernel's own memory are in neither. low <= host.uss_bytes <= high.
    freed_bounds_bytes: _Bounds | None
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> ProcessMemory: ...
    def to_dict(self) -> dict[str, Any]: ...

@final
class TreeSnapshot:
    """Processes and all their descendants. Sums are None where a tier does not tell them."""

    taken_ns: int  # CLOCK_MONOTONIC before the search for the processes
    span_ns: int  # until after the last reading
    tier: HostTier
    root_pids: tuple[int, ...]
    processes: tuple[ProcessMemory, ...]  # roots first, each followed by its descendants
    processes_count: int
    unread_count: int  # gone, denied or partial
    # All were found and read; otherwise the sums are lower bounds. False, too, where /proc lists a
    # process that may not be looked at (hidepid=1): it may be one of the tree or not.
    complete: bool
    rss_bytes: int | None  # counts a page as often as it is mapped
    pss_bytes: int | None  # counts it once
    pss_anon_bytes: int | None
    pss_file_bytes: int | None
    pss_shmem_bytes: int | None
    uss_bytes: int | None
    swap_bytes: int | None  # counts a page as often as it is mapped
    swap_pss_bytes: int | None
    private_hugetlb_bytes: int | None
    # What the end of all of them frees at once. Low: pss_anon if nobody else can share such pages,
    # else the sum of the processes' lows. High: pss, which counts whole what only the tree maps;
    # None unless complete.
    freed_bounds_bytes: _Bounds | None
    def __sub__(self, before: TreeSnapshot, /) -> TreeDelta: ...  # ValueError for other roots
    _fields: ClassVar[tuple[str, ...]]
    @staticmethod
    def _make(values: Sequence[Any]) -> TreeSnapshot: ...
    def to_dict(self) -> dict[str, Any]: ...

def snapshot_tree(
    pid: int | Sequence[int] | None = None,
    *,
    host: Literal["counters", "breakdown", "rollup"] = "rollup",
) -> TreeSnapshot:
    """Reads processes and all their descendants; ``help(memacct.snapshot_tree)`` says all."""

# Its two steps and its pure rules, for their tests.
def _find_members(roots: Sequence[int]) -> list[TreeMember]: ...
def _read_members(members: Sequence[TreeMember], tier: HostTier) -> TreeSnapshot: ...
def _freed_bounds(host: HostMemory) -> _Bounds | None: ...
def _title_from_cmdline(text: bytes) -> str: ...
def _role_of(title: str, name: str = "") -> tuple[str | None, str | None]: ...

# Of a timeline, at every entry.
def host_terms_json(reading: Snapshot) -> str: ...
def append_line(fd: int, device: int, inode: int, line: bytes) -> int:
    """Returns the bytes written or -errno; -EBADF if fd is not that file's, too."""

def set_allocator_reader(
    reader: Callable[[], Sequence[AllocatorMemory] | None] | None,
) -> None: ...
def monotonic_ns() -> int: ...
