"""Own means the engine: helpers of real processes on the simulated GPU, charged or not."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess

from memacct._units import MIB
from memacct.sim import Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELPER_BYTES = 682 * MIB  # what vllm#54275 saw appear after the baseline, context and all
SIZE = HELPER_BYTES - 400 * MIB  # what it allocates beside its context on the simulated GPU
ENGINE = {"MEMACCT_ENGINE_ID": "the-engine"}

PRELUDE = """
from memacct.accounting.consumption import ConsumptionFollower, Reading
from memacct.accounting.equation import device_equation
from memacct.accounting.foreign import foreign_changes
from memacct.integrations.vllm import _family, _family_siblings, register_sibling

def reading_now():
    device = _core.read_device(0)
    return Reading(
        free_bytes=device.free_bytes, device=device, siblings=_family_siblings.siblings_on(device)
    )

def begin():
    global follower
    context()
    _core.identify(0)
    first = reading_now()
    follower = ConsumptionFollower(first)
    _family.found_device(first.device)

def account():
    reading, baseline = reading_now(), follower.baseline.device
    found = follower.follow(reading)
    rows = device_equation(reading.device, baseline=baseline, siblings=follower.siblings)
    engine = _family_siblings.engine_processes(reading.device, baseline, follower.siblings)
    return {
        "consumed": found.consumed_bytes, "source": found.source, "reason": found.reason,
        "grown": follower.last_grown_bytes,
        "exact": sum(row.now_bytes for row in rows) == reading.device.total_bytes,
        "engine": {row.pid: [row.owner, row.role, row.since_start_bytes] for row in engine},
        "foreign": {c.pid: c.delta_bytes for c in
                    foreign_changes(baseline, reading.device, follower.siblings)},
        "why": _family_siblings.why_siblings_unknown(reading.device),
    }
"""

# A daemon: made by two forks and in a session of its own; ends with us. `start` is its program.
DAEMON = """
import ctypes
def daemon(size_bytes, *, program):
    if program:
        unrelated(size_bytes)
        return
    reader, writer = os.pipe()
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.close(theirs)
        if os.fork() == 0:
            os.setsid()
            context()
            allocate(size_bytes)
            os.write(writer, b".")
            os.read(ours, 1)
        os._exit(0)
    os.wait()
    os.close(ours)
    os.close(writer)
    assert os.read(reader, 1) == b"."
    os.close(reader)
    _pipes.append(theirs)
"""


class Engine:
    """Processes that take an engine's parts, each a program that this test started."""

    def __init__(self, gpu: SimulatedGpu, folder: Path, stack: ExitStack) -> None:
        self.gpu, self.folder, self._stack = gpu, folder, stack

    def process(
        self, join: str = "", *, env: dict[str, str] | None = None, faults: Faults | None = None
    ) -> DeviceProcess:
        """One that joins the engine by the given statement."""
        environ = {"MEMACCT_ENGINE_DIR": str(self.folder), **(ENGINE if env is None else env)}
        process = self._stack.enter_context(DeviceProcess(self.gpu, env=environ, faults=faults))
        process.run(PRELUDE + DAEMON)
        if join:
            process.run(f"_family.family.join({join})")
        return process

    def worker(self, rank: int = 0, device: int = 0, **options: Any) -> DeviceProcess:
        """A worker that has taken its baseline, if the device is the first."""
        process = self.process(f"_family.WORKER, rank={rank}, dp_rank=0", **options)
        if device == 0:
            process.run("begin()")
        else:
            process.run(
                f"_family.found_device((context({device}), _core.read_device({device}))[1])"
            )
        return process


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with SimulatedGpu(total_bytes="32GiB", count=2) as gpu, ExitStack() as stack:
        yield Engine(gpu, tmp_path / "engines", stack)


def account(worker: DeviceProcess) -> dict[str, Any]:
    found: dict[str, Any] = worker.run("result = account()")
    assert found["exact"]
    return found


def assert_charged(worker: DeviceProcess, role: str, owner: str = "sibling") -> None:
    found = account(worker)
    assert found["consumed"] == HELPER_BYTES
    assert found["grown"] == 0
    assert found["foreign"] == {}
    moved = [row for row in found["engine"].values() if row[2] != 0]
    assert moved == [[owner, role, HELPER_BYTES]]


def assert_foreign(worker: DeviceProcess) -> None:
    found = account(worker)
    assert found["consumed"] == 0
    assert found["grown"] == HELPER_BYTES
    assert list(found["foreign"].values()) == [HELPER_BYTES]
    assert [row[2] for row in found["engine"].values()] == [0]


# ---------------------------------------------------------------- a helper that comes late


def test_a_helper_of_the_worker_is_charged(engine: Engine) -> None:
    worker = engine.worker()
    worker.run(f"child = in_tree({SIZE})")
    assert_charged(worker, "child of worker rank 0", owner="tree")


@pytest.mark.parametrize("program", [True, False])
def test_a_daemon_of_the_worker_is_charged(engine: Engine, program: bool) -> None:
    worker = engine.process("_family.WORKER, rank=0")
    if program:
        worker.run(f"begin(); daemon({SIZE}, program=True)")
        assert_charged(worker, "daemon of worker rank 0")
    else:
        # CUDA cannot be had in a fork of a process that uses it; so the daemon is forked first.
        worker.run("go, gone = os.pipe(), os.pipe()")
        worker.run(
            f"if os.fork() == 0:\n"
            f"    if os.fork() == 0:\n"
            f"        os.setsid(); os.close(go[1]); os.read(go[0], 1); context()\n"
            f"        allocate({SIZE}); os.write(gone[1], b'.')\n"
            f"        os.read(go[0], 1)\n"
            f"    os._exit(0)\n"
            f"os.wait()"
        )
        worker.run("begin(); os.write(go[1], b'.'); os.read(gone[0], 1)")
        assert_charged(worker, "fork of worker rank 0")


def test_a_spawned_child_of_the_core_is_charged(engine: Engine) -> None:
    worker = engine.worker()
    core = engine.process("_family.ENGINE_CORE, dp_rank=0")
    core.run(f"child = in_tree({SIZE})")
    assert_charged(worker, "child of EngineCore")


@pytest.mark.parametrize(("program", "kind"), [(True, "daemon"), (False, "fork")])
def test_a_daemon_of_the_core_is_charged(
    engine: Engine,
    program: bool,
    kind: str,
) -> None:
    worker = engine.worker()
    core = engine.process("_family.ENGINE_CORE, dp_rank=0")
    core.run(f"daemon({SIZE}, program={program})")
    assert_charged(worker, f"{kind} of EngineCore")


def test_a_decoder_in_an_api_server_is_charged(engine: Engine) -> None:
    worker = engine.worker()
    engine.process("_family.API_SERVER").run(f"context(); allocate({SIZE})")
    assert_charged(worker, "API server")


def test_what_is_started_with_the_engines_name_is_charged(engine: Engine) -> None:
    worker = engine.worker()
    engine.process().run(f"context(); allocate({SIZE})")
    assert_charged(worker, "daemon")


def test_what_is_registered_by_hand_is_charged(engine: Engine) -> None:
    worker = engine.worker()
    with DeviceProcess(engine.gpu) as stranger:
        stranger.run(f"context(); allocate({SIZE})")
        assert_foreign(worker)
        worker.run(f"register_sibling({stranger.pid}, role='decoder')")
        assert_charged(worker, "decoder")


def test_what_a_sibling_held_before_is_not_charged(engine: Engine) -> None:
    server = engine.process("_family.API_SERVER")
    server.run(f"context(); allocate({SIZE})")
    worker = engine.worker()
    assert account(worker)["consumed"] == 0
    server.run(f"allocate({64 * MIB})")
    found = account(worker)
    assert (found["consumed"], found["source"]) == (64 * MIB, "own+tree+siblings")
    server.kill()
    assert account(worker)["consumed"] == -HELPER_BYTES
    assert found["foreign"] == {}


# ---------------------------------------------------------------- whose it is not


def test_an_unrelated_process_is_not_charged(engine: Engine) -> None:
    worker = engine.worker()
    with DeviceProcess(engine.gpu) as stranger:
        stranger.run(f"context(); allocate({SIZE})")
        assert_foreign(worker)


def test_another_engines_helper_is_not_charged(engine: Engine) -> None:
    worker = engine.worker()
    other = engine.process("_family.ENGINE_CORE", env={"MEMACCT_ENGINE_ID": "another"})
    other.run(f"child = in_tree({SIZE})")
    assert_foreign(worker)


@pytest.mark.parametrize("work", ["context(); allocate({})", "child = in_tree({})"])
def test_a_users_process_and_its_children_are_not_charged(engine: Engine, work: str) -> None:
    worker = engine.worker()
    trainer = engine.process("_family.USER")
    trainer.run(work.format(SIZE))
    assert_foreign(worker)


def test_a_users_daemon_is_not_charged(engine: Engine) -> None:
    worker = engine.worker()
    engine.process("_family.USER").run(f"daemon({SIZE}, program=True)")
    assert_foreign(worker)


def test_a_peers_context_on_this_device_is_charged(engine: Engine) -> None:
    worker = engine.worker()
    peer = engine.worker(rank=1, device=1)
    assert account(worker)["consumed"] == 0
    peer.run("context(0)")
    found = account(worker)
    assert found["consumed"] > 0
    assert found["engine"][str(peer.pid)] == ["sibling", "worker", found["consumed"]]
    assert found["foreign"] == {}


@pytest.mark.parametrize("below", [False, True])
def test_a_worker_with_a_budget_here_is_not_charged(engine: Engine, below: bool) -> None:
    # Two data parallel ranks of one command on one GPU: each is an engine with its own budget.
    worker = engine.worker()
    other = engine.process("_family.WORKER, rank=0, dp_rank=1")
    other.run("context()")
    context_bytes = account(worker)["grown"]
    other.run("begin()")
    assert account(worker)["grown"] == context_bytes
    other.run(f"child = in_tree({SIZE})" if below else f"allocate({HELPER_BYTES})")
    found = account(worker)
    assert found["consumed"] == 0
    assert found["grown"] == context_bytes + HELPER_BYTES


# ---------------------------------------------------------------- where numbers are others'


def test_with_the_hosts_numbers_a_peer_tells_its_own(engine: Engine) -> None:
    hosts = Faults(pids="host")
    worker = engine.worker(faults=hosts)
    peer = engine.process("_family.WORKER, rank=1, dp_rank=0", faults=hosts)
    peer.run("context(0)")
    found = account(worker)
    assert found["consumed"] == 0
    assert found["grown"] > 0
    assert "numbers are not those of our /proc" in found["why"]
    # It finds its number, and says whose device is its own: the other one.
    peer.run(
        "_core.identify(0); here = _core.read_device(0); assert here.attribution.own_pid;"
        "_family.family.put(_family.dataclasses.replace(_family.family.entry,"
        " device_uuid='GPU-other', driver_pid=here.attribution.own_pid))"
    )
    told = account(worker)
    assert (told["consumed"], told["grown"]) == (found["grown"], 0)
    assert told["source"] == "own+tree+siblings"
