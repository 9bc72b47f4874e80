"""The error classes: one tree, raised by the core under the same names, and picklable."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest

import memacct
from memacct import _core

EXAMPLES = [
    memacct.MemacctError("text"),
    memacct.SourceError("file", "reason"),
    memacct.SourceUnavailableError("file", "reason"),
    memacct.SourceReadError("file", "reason", 5),
    memacct.SourceFormatError("file", "reason", "line"),
    memacct.DriverError("nvmlInit_v2", 9, "NVML_ERROR_DRIVER_NOT_LOADED"),
    memacct.SamplerError("text"),
    memacct.BudgetError("text"),
    memacct.ConfigError("text"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_each_error_survives_pickling_with_all_it_says(error: memacct.MemacctError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own bytes)
    assert type(copy) is type(error)
    assert copy.args == error.args
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_a_source_is_named_once() -> None:
    script = """
import memacct
from memacct import _core
try:
    _core.read_devices("all")
except memacct.SourceUnavailableError as error:
    print(error.source, error, sep="\\n")
"""
    missing = {**os.environ, "MEMACCT_NVML_LIBRARY": "/nowhere/libnvidia-ml.so.1"}
    child = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=missing,
    )
    source, text = child.stdout.splitlines()
    assert text.count("libnvidia-ml.so.1") == 1
    assert text.count("cannot open shared object file") == 1
    assert source in text


def test_a_format_error_of_the_core_has_its_parts() -> None:
    with pytest.raises(memacct.SourceFormatError) as caught:
        _core.parse_statm(b"x\n", 4096)
    assert caught.value.args == ("/proc/self/statm", "not seven numbers", "x")
    assert str(caught.value) == "/proc/self/statm: not seven numbers"


def test_a_read_error_of_the_core_has_its_errno(tmp_path: os.PathLike[str]) -> None:
    folder = os.path.join(tmp_path, "proc", "self", "cgroup")  # noqa: PTH118
    os.makedirs(folder)  # noqa: PTH103  a folder where the file should be
    with pytest.raises(memacct.SourceReadError) as caught:
        _core.read_cgroup(os.fspath(tmp_path))
    assert caught.value.errno == 21  # EISDIR
    assert caught.value.source == folder


def test_no_file_descriptor_left_is_a_read_error_and_passes() -> None:
    script = """
import os, resource
import memacct
resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    memacct.snapshot("counters")
except memacct.SourceReadError as error:
    print(error.errno, error.source)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
print(memacct.snapshot("counters").pid == os.getpid())
"""
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert child.stdout.split() == ["24", "/proc/self/statm", "True"]  # EMFILE
