"""Installed and not enabled, memacct changes nothing: logs, compile cache, memory, interfaces.

Two environments that differ by memacct alone: the links to its package and its metadata. In both
VLLM_PLUGINS names it, as that variable is itself in the key of vLLM's compile cache. vLLM says
nothing of general plugins at its default log level, so the logs must be the same line by line.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memacct.demo import SimulatedWorld
from memacct.demo.engine import EngineRun, engine_environ
from memacct.demo.runner import COMPILED, LOADED
from memacct.demo.scenarios import GRAPHS

if TYPE_CHECKING:
    from collections.abc import Callable

    from memacct.demo import Bench, EngineResult

pytestmark = pytest.mark.engine

# What differs between any two starts: when, who, how long, where at random.
VARIES = (
    (r"pid=\d+", "pid=P"),
    (r"\b[IWE]\d{4} \d\d:\d\d:\d\d\.\d+ \d+", "TIME"),
    (r"\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"\d+(\.\d+)? ?(s|secs|seconds|ms)\b", "DURATION"),
    (r"(tcp|ipc|file)://[^\s,'\"]+", "ADDRESS"),
    (r"0x[0-9a-f]+", "ADDRESS"),
    (r"Available RAM: [\d.]+", "Available RAM: N"),
    (r"time: [\d.]+", "time: DURATION"),
    (r"[\d.]+ toks?/s|[\d.]+ ?it/s", "RATE"),
)
# Bars are drawn as time allows; in which order the processes find each other gone, is a race.
LEFT_OUT = re.compile(r"\d+%\||\d+/\d+ \[|\[shutdown\]")
SPEAKER = re.compile(r"^\((\w+) pid=P\)")


SIZES = (
    "kv_cache_bytes",
    "num_gpu_blocks",
    "available_bytes",
    "requested_bytes",
    "peak_activation_bytes",
    "graphs_estimate_bytes",
)


@dataclass(frozen=True, kw_only=True)
class Start:
    result: EngineResult
    log: dict[str, list[str]]
    caches: list[str]


def spoken(log: str) -> dict[str, list[str]]:
    """The log's lines without what varies, by the process that said them."""
    found: dict[str, list[str]] = {}
    for line in re.split(r"[\r\n]+", log):
        if LEFT_OUT.search(line) or not line.strip():
            continue
        text = line
        for pattern, plain in VARIES:
            text = re.sub(pattern, plain, text)
        speaker = SPEAKER.match(text)
        found.setdefault(speaker[1] if speaker else "", []).append(text)
    return found


@pytest.fixture(scope="module")
def environment(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of links to the engine's packages, memacct's among them."""
    folder = tmp_path_factory.mktemp("inert") / "venv"
    subprocess.run([bench.python, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (real,) = bench.python.parents[1].glob("lib/python*/site-packages")
    for entry in real.iterdir():
        (packages / entry.name).symlink_to(entry)
    return folder


def put_memacct(environment: Path, bench: Bench, *, there: bool) -> None:
    (packages,) = environment.glob("lib/python*/site-packages")
    (real,) = bench.python.parents[1].glob("lib/python*/site-packages")
    entries = list(real.glob("memacct*"))
    assert len(entries) > 1  # the package and its metadata
    for entry in entries:
        (packages / entry.name).unlink(missing_ok=True)
        if there:
            (packages / entry.name).symlink_to(entry)


@pytest.fixture(scope="module")
def starts(bench: Bench, environment: Path, say: Callable[[str], None]) -> dict[bool, Start]:
    """A start without and one with memacct installed, after one that compiled the model."""
    # Another key than that of other tests: nobody else writes this cache.
    options = replace(GRAPHS, environ={"VLLM_CACHE_ROOT": str(environment.parent / "cache")})
    found = {}
    for turn, there in enumerate((False, False, True)):
        say(f"engine start {turn + 1} of 3: memacct {'installed' if there else 'not there'}")
        put_memacct(environment, bench, there=there)
        world = SimulatedWorld(python=bench.python)
        with world.machine(device_count=1, host_pids=False) as machine:
            run = EngineRun(
                options,
                python=environment / "bin" / "python",
                model=bench.model,
                folder=environment.parent / "run",
                total_bytes=machine.total_bytes,
                environ=machine.engine_environ(),
            )
            with run:
                result = run.finish()
        assert result.served, result.error
        caches = sorted(path.name for path in environment.parent.glob("cache/torch_*/*"))
        found[there] = Start(result=result, log=spoken(result.log()), caches=caches)
        (environment.parent / f"log{turn}.txt").write_text(result.log())
    return found


def test_the_log_is_the_same_line_by_line(starts: dict[bool, Start]) -> None:
    without, beside = starts[False].log, starts[True].log
    assert without.keys() == beside.keys()
    assert sum(map(len, without.values())) > 40
    for speaker, lines in without.items():
        assert beside[speaker] == lines


def test_the_compiled_model_is_found_under_the_same_key(starts: dict[bool, Start]) -> None:
    assert starts[True].caches == starts[False].caches != []
    assert starts[True].result.raw["config_hash"] == starts[False].result.raw["config_hash"]
    assert COMPILED not in starts[True].result.log()
    assert LOADED in starts[True].result.log()


def test_the_memory_is_the_same_to_the_byte(starts: dict[bool, Start]) -> None:
    without, beside = (starts[there].result.workers[0] for there in (False, True))
    assert {key: beside[key] for key in SIZES} == {key: without[key] for key in SIZES}
    assert beside["graphs_estimate_bytes"] > 0


def test_it_writes_nothing(starts: dict[bool, Start]) -> None:
    assert not list(starts[True].result.log_path.parent.glob("memacct*"))
    assert "memacct:" not in starts[True].result.log()


@pytest.fixture(scope="module")
def changes(bench: Bench) -> dict[str, Any]:
    """What loading the plugin changes in a process that has imported vLLM's engine."""
    world = SimulatedWorld(python=bench.python)
    with world.machine(device_count=1, host_pids=False) as machine:
        environ = engine_environ(machine.engine_environ(), {}, "memacct", bench.folder / "cache")
        done = subprocess.run(
            [bench.python, Path(__file__).with_name("inert_checks.py")],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
    (report,) = [line for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    found: dict[str, Any] = json.loads(report.removeprefix("REPORT "))
    return found


def test_what_it_wraps_keeps_its_name_signature_and_body(changes: dict[str, Any]) -> None:
    wrapped = [change for change in changes["changed"] if not change["is_new"]]
    assert "vllm.v1.worker.worker_base.WorkerWrapperBase.init_device" in {
        change["name"] for change in wrapped
    }
    for change in wrapped:
        assert all(change[key] for key in ("same_signature", "same_names", "wraps")), change


def test_what_it_adds_bears_its_name(changes: dict[str, Any]) -> None:
    added = [change["name"] for change in changes["changed"] if change["is_new"]]
    assert [name for name in added if "memacct" not in name] == []
    assert changes["gone"] == []


def test_it_starts_nothing_and_imports_only_itself(changes: dict[str, Any]) -> None:
    assert changes["threads_count"] == 0
    assert not changes["cuda_initialised"]
    foreign = [name for name in changes["modules"] if name.partition(".")[0] != "memacct"]
    assert not {name.partition(".")[0] for name in foreign} & {"torch", "vllm", "numpy", "rich"}
