"""The demo: real vLLM engines beside neighbours that move, stock and with memacct.

Each scenario is run three times on the same GPU, simulated where there is no real one: the
engine alone, the stock engine in the scenario, and the engine with memacct's native profiler in
the scenario. What is compared is what the engine really allocated for its KV cache.
"""

from __future__ import annotations

from .engine import EngineOptions, EngineResult
from .runner import Bench, Runner, count_starts
from .scenarios import SCENARIOS, TOLERANCE_BYTES, Move, Scenario
from .table import Row, judge, render, write_json
from .world import RealWorld, SimulatedWorld, choose_world

__all__ = [
    "SCENARIOS",
    "TOLERANCE_BYTES",
    "Bench",
    "EngineOptions",
    "EngineResult",
    "Move",
    "RealWorld",
    "Row",
    "Runner",
    "Scenario",
    "SimulatedWorld",
    "choose_world",
    "count_starts",
    "judge",
    "render",
    "write_json",
]
