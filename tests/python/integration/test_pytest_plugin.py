"""The pytest plugin in real pytest runs of their own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memacct.sim import Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Sequence

MODULE = "memacct.integrations.pytest"
BARE = [sys.executable, "-m", "pytest", "--import-mode=importlib", "-rA", "-W", "error"]
BARE += ["--strict-markers", "-p", "no:cacheprovider"]
PYTEST = [*BARE, "-p", MODULE]
# Other plugins of this environment would only take time.
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "140"}
HELPERS = str(Path(__file__).parents[1] / "helpers")

HEADER = """
import asyncio, gc, mmap, os, sys, unittest
import pytest

MIB = 1 << 20
kept = []

def take(size_mib, path=None):
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    block = mmap.mmap(-1, size_mib * MIB, flags=flags)
    for at in range(0, len(block), mmap.PAGESIZE):
        block[at] = 1
    kept.append(block)
    return block
"""


def run(
    folder: Path, source: str, *options: str, command: Sequence[str] = PYTEST, **environment: str
) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(HEADER + source)
    env = {**os.environ, **ALONE, **environment}
    return subprocess.run(
        [*command, *options, "test_it.py"],
        cwd=folder,
        env=env,
        check=False,
        text=True,
        capture_output=True,
        timeout=60,
    )


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    lines = re.findall(
        r"^(PASSED|FAILED|ERROR|XFAIL|SKIPPED) .*?::(\S+)", done.stdout, re.MULTILINE
    )
    return {name: outcome for outcome, name in lines}


LIMITS = """
@pytest.mark.memory(max_rss_growth="20MiB")
def test_much():
    take(64)

@pytest.mark.memory(max_rss_growth="200MiB")
def test_enough():
    take(64)

@pytest.fixture
def large():
    return take(64)

@pytest.mark.memory(max_rss_growth="20MiB")
def test_the_setup_is_not_counted(large):
    pass

@pytest.mark.memory(max_rss_growth=20 * MIB)
@pytest.mark.parametrize("size", [1, 64])
def test_of(size):
    take(size)

@pytest.mark.memory(max_rss_growth="20MiB")
def test_async():
    async def grow():
        take(64)
    asyncio.run(grow())

@pytest.mark.memory(max_rss_growth="20MiB")
class TestClass:
    def test_inherits(self):
        take(64)

    @pytest.mark.memory(max_rss_growth="200MiB")
    def test_says_otherwise(self):
        take(64)

@pytest.mark.memory(max_rss_growth="20MiB")
class TestCase(unittest.TestCase):
    def test_unittest(self):
        take(64)

@pytest.mark.xfail(strict=True)
@pytest.mark.memory(max_rss_growth="20MiB")
def test_expected():
    take(64)

@pytest.mark.memory(max_rss_growth="20MiB")
def test_own_failure_stands():
    take(64)
    assert "the test's own"[:0]

def test_without():
    take(64)
"""


def test_limits_of_growth(tmp_path: Path) -> None:
    done = run(tmp_path, LIMITS)
    assert outcomes(done) == {
        "test_much": "FAILED",
        "test_enough": "PASSED",
        "test_the_setup_is_not_counted": "PASSED",
        "test_of[1]": "PASSED",
        "test_of[64]": "FAILED",
        "test_async": "FAILED",
        "TestClass::test_inherits": "FAILED",
        "TestClass::test_says_otherwise": "PASSED",
        "TestCase::test_unittest": "FAILED",
        "test_expected": "XFAIL",
        "test_own_failure_stands": "FAILED",
        "test_without": "PASSED",
    }, done.stdout
    # One table: what grew, by kind, and the limit.
    said = done.stdout.partition("test_much")[2].partition("____")[2]
    assert re.search(r"rss grew by 6[45]\.\d\d MiB, above its limit 20\.00 MiB", said)
    assert re.search(r"^anon .*\+6[45]\.\d\d MiB", said, re.MULTILINE)
    assert "Traceback" not in said
    assert done.stdout.count("above its limit") >= 5
    own = done.stdout.partition(" test_own_failure_stands _")[2].partition(" PASSES ")[0]
    assert "AssertionError" in own
    assert "above its limit" not in own


PEAKS = """
@pytest.mark.memory(max_rss_peak="150MiB")
def test_a_peak_that_is_over_at_the_end():
    take(200).close()

@pytest.mark.memory(max_rss_peak="150MiB")
def test_a_peak_below_an_earlier_one_is_sampled():
    block = take(160)
    before = os.times().user
    while os.times().user - before < 0.1:  # several samples
        pass
    block.close()

@pytest.mark.memory(max_rss_peak="150MiB")
def test_no_peak():
    pass

@pytest.fixture
def waste():
    class Node:
        pass
    def make():
        node = Node()
        node.itself, node.block = node, bytearray(64 * MIB)
    gc.disable()
    yield make
    gc.enable()

@pytest.mark.memory(max_rss_growth="20MiB")
def test_garbage(waste):
    waste()

@pytest.mark.memory(max_rss_growth="20MiB", gc=True)
def test_garbage_collected(waste):
    waste()

@pytest.fixture
def wasted(waste):
    waste()

@pytest.mark.memory(max_rss_growth="20MiB", gc=True)
def test_garbage_of_before_hides_nothing(wasted):
    take(64)

@pytest.mark.memory(max_rss_growth=0, max_rss_peak=None, max_device_growth="1MiB")
def test_no_driver_no_device_memory():
    take(1)
"""


def test_peaks_and_garbage(tmp_path: Path) -> None:
    done = run(tmp_path, PEAKS, "-p", "no:logging")
    assert outcomes(done) == {
        "test_a_peak_that_is_over_at_the_end": "FAILED",
        "test_a_peak_below_an_earlier_one_is_sampled": "FAILED",
        "test_no_peak": "PASSED",
        "test_garbage": "FAILED",
        "test_garbage_collected": "PASSED",
        "test_garbage_of_before_hides_nothing": "FAILED",
        "test_no_driver_no_device_memory": "FAILED",
    }, done.stdout
    assert re.search(
        r"^E?\s*peak rss [\d.]+ MiB, above its limit 150.00 MiB", done.stdout, re.MULTILINE
    )
    assert "peak rss, at least" in done.stdout


WRONG = """
@pytest.mark.memory(max_rs_growth="1MiB")
def test_name():
    pass

@pytest.mark.memory(max_rss_growth="much")
def test_value():
    pass

@pytest.mark.memory("1MiB")
def test_position():
    pass

@pytest.mark.memory(gc=1)
def test_gc():
    pass

@pytest.mark.memory(max_rss_growth=-1)
def test_negative():
    pass

@pytest.mark.memory()
def test_empty():
    pass
"""


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    done = run(tmp_path, WRONG)
    wrong = {f"test_{name}": "ERROR" for name in ("name", "value", "position", "gc", "negative")}
    assert outcomes(done) == {**wrong, "test_empty": "PASSED"}, done.stdout
    for said in (
        "there is no argument 'max_rs_growth'; there are max_rss_growth, max_rss_peak",
        "max_rss_growth: 'much' is not a size",
        "'1MiB' needs a name",
        "gc=1 is not True or False",
        "max_rss_growth: -1 is not",
    ):
        assert f"@pytest.mark.memory: {said}" in done.stdout
    option = run(tmp_path, WRONG, "--memory-top", "0")
    assert option.returncode == pytest.ExitCode.USAGE_ERROR
    assert "'0' is not a number from 1 on" in option.stderr


TOP = """
def test_small(): take(30)
def test_large(): take(90)
def test_middle(): take(60)
@pytest.mark.skip
def test_nothing(): take(120)
"""


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "xdist"])
def test_the_top_growers(tmp_path: Path, workers: tuple[str, ...]) -> None:
    if workers and importlib.util.find_spec("xdist") is None:
        pytest.skip("pytest-xdist is not installed")
    junit = tmp_path / "junit.xml"
    done = run(tmp_path, TOP, "--memory-top", "2", *workers, f"--junit-xml={junit}")
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.partition("top 2 by growth of memory (MiB)")[2].splitlines()
    assert [line.split()[-1] for line in table[1:4]] == [
        "test",
        "test_it.py::test_large",
        "test_it.py::test_middle",
    ]
    assert re.fullmatch(r"\s*\+9\d\.\d\s+\+9\d\.\d .*test_large", table[2])
    assert "memacct_growth_bytes" in junit.read_text()


DEVICE = f"""
sys.path.insert(0, {HELPERS!r})
from device_process import allocate, context

@pytest.mark.memory(max_device_growth="10MiB")
def test_none():
    pass

@pytest.mark.memory(max_device_growth="500MiB")
def test_context():
    context()

@pytest.mark.memory(max_device_growth="10MiB")
def test_device():
    allocate(64 * MIB)
"""


def test_limits_of_device_memory(tmp_path: Path) -> None:
    with SimulatedGpu(total_bytes="8GiB") as gpu:
        done = run(tmp_path, DEVICE, **gpu.environ({}))
        expected = {"test_none": "PASSED", "test_context": "PASSED", "test_device": "FAILED"}
        assert outcomes(done) == expected, done.stdout
        (device,) = gpu.status().devices
        assert f"{device.uuid} grew by 64.00 MiB, above its limit 10.00 MiB" in done.stdout
        # What cannot be known before is a skip with its reason, afterwards a failure.
        hidden = run(tmp_path, DEVICE, **gpu.environ({}, faults=Faults(pid_bytes={"all": None})))
        expected = {"test_none": "PASSED", "test_context": "FAILED"}
        assert outcomes(hidden) == expected, hidden.stdout
        assert "a limit cannot be checked any more: what this process holds" in hidden.stdout
        assert re.search(r"^SKIPPED .*what this process holds of GPU-", hidden.stdout, re.MULTILINE)


def test_it_is_inert_until_it_is_used(tmp_path: Path) -> None:
    script = f"""
import json, sys
import {MODULE}
print(json.dumps(sorted(name for name in sys.modules if name.startswith(("memacct", "numpy")))))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    allowed = {"memacct", "memacct._core", "memacct._errors", "memacct.integrations", MODULE}
    assert set(json.loads(done.stdout)) <= allowed
    # Whoever does without it has none of it.
    refused = run(tmp_path, TOP, "--memory-top", "1", command=BARE)
    assert "unrecognized arguments: --memory-top" in refused.stderr


def test_memacct_may_be_imported_before_pytest(tmp_path: Path) -> None:
    """Pytest rewrites the assertions of packages with plugins, and warns if it comes too late."""
    script = "import memacct, pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
    found = importlib.metadata.entry_points(group="pytest11")
    if not any(each.value == MODULE for each in found):
        pytest.skip("memacct was installed before it had a plugin")
    options = ("--memory-top", "1", "-p", "no:hypothesispytest")
    command = [sys.executable, "-c", script, *BARE[3:]]
    done = run(tmp_path, TOP, *options, command=command, PYTEST_DISABLE_PLUGIN_AUTOLOAD="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "top 1 by growth" in done.stdout
