"""The bound on what statm and status may be off by: a table of kernels, and its laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memacct import SourceFormatError, _core

PAGE = 4096
THREAD = 66 * 64 * 1024
TWO_CPUS = 3 * 2 * 31 * PAGE

# The same kernel in two states: summed on read (0), per CPU, or per thread (None if unknown).
SUMMED = [
    "6.16.0",
    "6.16",
    "6.18.44-x",
    "7.0.0-rc1",
    "10.1.2",
    "6.12.39",
    "6.12.63-amd64",
    "6.15.7",
]
PER_CPU = [
    "6.2.0-rc1",
    "6.2.0",
    "6.8.0-45-generic",
    "6.12.38+deb13-amd64",
    "6.12.0-55.el10.x86_64",
    "6.15.6",
    "6.15.7-rc1",
    "6.13.12",
    "6.14.11",
    "6.16.0-rc3",
]
PER_THREAD = [
    "4.4.0",
    "4.18.0-553.el8_10.x86_64",
    "5.15.167.4-microsoft-standard-WSL2",
    "6.1.0",
    "6.1",
]
UNKNOWN = ["", "6", "6.", "6.x", "x", "-6.2", " 6.2", "six.two", "6..2", "99999999999999999999.1"]


@pytest.mark.parametrize("release", SUMMED)
def test_a_kernel_that_sums_on_read_is_exact(release: str) -> None:
    assert _core.rss_error_bound(release, 128, PAGE) == 0


@pytest.mark.parametrize("release", PER_CPU)
def test_a_kernel_that_counts_per_cpu_holds_back_less_than_a_batch_on_each(release: str) -> None:
    assert _core.rss_error_bound(release, 2, PAGE) == TWO_CPUS
    # The batch is twice the CPUs where that is more than 32.
    assert _core.rss_error_bound(release, 128, PAGE) == 3 * 128 * 255 * PAGE
    assert _core.rss_error_bound(release, 64, 65536, thread_count=9) == 3 * 64 * 127 * 65536


@pytest.mark.parametrize("release", PER_THREAD)
def test_a_kernel_that_counts_per_thread_needs_their_number(release: str) -> None:
    assert _core.rss_error_bound(release, 2, PAGE) is None
    assert _core.rss_error_bound(release, 2, PAGE, thread_count=10) == 10 * THREAD
    assert _core.rss_error_bound(release, 2, 65536, thread_count=10) == 10 * THREAD
    # Its distribution may have brought it the counters per CPU.
    assert _core.rss_error_bound(release, 256, PAGE, thread_count=1) == 3 * 256 * 511 * PAGE


@pytest.mark.parametrize("release", UNKNOWN)
def test_an_unknown_kernel_has_no_bound(release: str) -> None:
    assert _core.rss_error_bound(release, 2, PAGE, thread_count=1) is None


@given(st.text(max_size=20), st.integers(1, 8192), st.integers(1, 10**6))
def test_any_text_is_a_kernel_or_unknown(release: str, cpus: int, threads: int) -> None:
    bound = _core.rss_error_bound(release, cpus, PAGE, threads)
    assert bound is None or bound % PAGE == 0


@given(
    st.tuples(st.integers(2, 7), st.integers(0, 20), st.integers(0, 60)),
    st.integers(1, 8192),
    st.integers(1, 10**6),
)
def test_more_cpus_and_threads_never_make_it_narrower(
    version: tuple[int, int, int], cpus: int, threads: int
) -> None:
    release = "{}.{}.{}-generic".format(*version)
    bound = _core.rss_error_bound(release, cpus, PAGE, threads)
    more = _core.rss_error_bound(release, cpus + 1, PAGE, threads + 1)
    assert bound is not None
    assert more is not None
    assert bound <= more


def test_the_number_of_threads_is_read_from_status() -> None:
    text = b"VmSize:\t    3060 kB\nVmRSS:\t    1692 kB\n"
    assert _core.parse_status(text).thread_count is None
    assert _core.parse_status(text + b"Threads:\t17\nSigQ:\t0/9\n").thread_count == 17


@pytest.mark.parametrize(
    "line", [b"Threads:\t\n", b"Threads:\t-1\n", b"Threads:\t1 kB\n", b"Threads:\t9"]
)
def test_a_number_of_threads_that_is_none_is_not_understood(line: bytes) -> None:
    with pytest.raises(SourceFormatError):
        _core.parse_status(b"VmSize:\t    3060 kB\nVmRSS:\t    1692 kB\n" + line)
