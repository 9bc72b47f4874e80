"""Starts of real engines, each made once a session and shared by the tests that look at it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from warm_place import Place

from memacct._units import MIB
from memacct.demo import Bench, Row, Runner, Scenario, SimulatedWorld, judge
from memacct.demo.neighbour import Neighbour
from memacct.demo.scenarios import DEVICE_BYTES
from memacct.demo.setup import about_engine, engine_python, make_model
from memacct.demo.warm import WarmEngines
from memacct.demo.world import SimulatedMachine
from memacct.sim import Costs, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memacct.demo import EngineResult

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".memacct" / "engine-tests"


class Starts:
    """Runs scenarios on the simulated GPU; the same question is answered from memory."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._outcomes: dict[tuple[str, str], list[EngineResult]] = {}

    def isolated(self, scenario: Scenario) -> EngineResult:
        """The first engine's start with nothing else on the machine."""
        return self.runner.isolated(scenario)[0]

    def outcomes(self, scenario: Scenario, profiler: str) -> list[EngineResult]:
        """One result for each engine of the scenario."""
        key = (scenario.key, profiler)
        if key not in self._outcomes:
            self._outcomes[key] = self.runner.outcomes(scenario, profiler)
        return self._outcomes[key]

    def stock(self, scenario: Scenario) -> EngineResult:
        """The first engine's, stock."""
        return self.outcomes(scenario, "stock")[0]

    def native(self, scenario: Scenario) -> EngineResult:
        """The first engine's, with memacct's native profiler."""
        return self.outcomes(scenario, "native")[0]

    def rows(self, scenario: Scenario) -> list[Row]:
        """The demo's judgement of each engine."""
        together = zip(
            self.runner.isolated(scenario),
            self.outcomes(scenario, "stock"),
            self.outcomes(scenario, "native"),
            strict=True,
        )
        return [judge(scenario, i, *results) for i, results in enumerate(together)]


def environment(variable: str, folder: str) -> Path:
    """The interpreter of an environment with an engine; skips the test if there is none."""
    named = os.environ.get(variable)
    if named is None and not (ROOT / folder).exists():
        pytest.skip("no environment with vLLM: run `make test-engines`")
    return engine_python(Path(named) if named else ROOT / folder / "bin" / "python")


@pytest.fixture(scope="session")
def gpu_python() -> Path:
    python = environment("MEMACCT_ENGINE_PYTHON", ".venv-gpu")
    assert about_engine(python)["vllm"] == "0.33.0"
    return python


@pytest.fixture(scope="session")
def cpu_python() -> Path:
    return environment("MEMACCT_CPU_ENGINE_PYTHON", ".venv-cpu")


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Says on the terminal which engine starts: minutes without a word look like a hang."""
    terminal = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    capture = pytestconfig.pluginmanager.get_plugin("capturemanager")

    def write(text: str) -> None:
        if terminal is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                terminal.ensure_newline()
                terminal.write_line(text)

    return write


@pytest.fixture(scope="session")
def bench(gpu_python: Path, say: Callable[[str], None]) -> Bench:
    model = make_model(gpu_python, WORK / "model", say)
    return Bench(python=gpu_python, model=model, folder=WORK / "runs")


@pytest.fixture(scope="session")
def starts(bench: Bench, say: Callable[[str], None]) -> Starts:
    return Starts(Runner(bench, SimulatedWorld(python=bench.python), say))


@pytest.fixture(scope="session")
def warm(bench: Bench) -> Iterator[WarmEngines]:
    """Engines in a second or two, on a machine of 32 GiB that is theirs alone.

    A graph costs whole pages there, so that one is seen in free memory.
    """
    folder = replace(bench, folder=WORK / "warm")
    with SimulatedGpu(total_bytes=DEVICE_BYTES, costs=Costs(graph_bytes=4 * MIB)) as gpu:
        machine = SimulatedMachine(gpu=gpu, python=bench.python, faults=None)
        with WarmEngines(folder, machine) as engines:
            yield engines


@pytest.fixture(scope="session")
def place(bench: Bench) -> Iterator[Place]:
    """Such engines with two GPUs, and a neighbour on the first."""
    world = SimulatedWorld(python=bench.python).machine(device_count=2, host_pids=False)
    folder = replace(bench, folder=WORK / "warm")
    with (
        world as machine,
        WarmEngines(folder, machine, count=False) as engines,
        Neighbour(machine.neighbour_environ()) as neighbour,
    ):
        yield Place(engines, neighbour)
