"""Engines that start in a second or two, beside a neighbour, and what memacct wrote of them."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memacct.demo.scenarios import EAGER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from memacct.demo import EngineResult
    from memacct.demo.neighbour import Neighbour
    from memacct.demo.warm import WarmEngines

MODEL_LEN = 4096
LIMIT_S = 60.0


class Place:
    """Two GPUs, a neighbour on the first, and engines beside it."""

    def __init__(self, engines: WarmEngines, neighbour: Neighbour) -> None:
        self.engines, self.neighbour = engines, neighbour
        self.gpu = engines.machine.gpu

    def start(
        self,
        name: str,
        memacct: Mapping[str, Any] | None = None,
        *,
        at_cue: tuple[str, Callable[[], object]] | None = None,
        once_said: Mapping[str, Callable[[], object]] | None = None,
        steps: tuple[tuple[Any, ...], ...] = (),
        **arguments: Any,
    ) -> EngineResult:
        """Starts one engine and waits for its end; stock without a configuration.

        Args:
            name: of its folder.
            at_cue: a cue (engine_side/memacct_stage.py), and what to do at it.
            once_said: what to do when the log has a text; one after the other.
            steps: what the engine is to do once it serves.
            arguments: of `vllm.LLM`.
        """
        folder = self.engines.bench.folder / name
        environ = {}
        if at_cue is not None:
            for stale in ("reached", "go"):
                (folder / f"{at_cue[0]}.{stale}").unlink(missing_ok=True)
            environ = {"MEMACCT_STAGE_DIR": str(folder), "MEMACCT_STAGE_CUES": at_cue[0]}
        config = None if memacct is None else {"memacct": {"profiler": "native", **memacct}}
        options = replace(
            EAGER,
            plugins="memacct",
            max_model_len=MODEL_LEN,
            additional_config=config,
            arguments=arguments,
            environ=environ,
            steps=steps,
        )
        started = self.engines.start(options, name)
        if at_cue is not None:
            cue, act = at_cue
            wait_until((folder / f"{cue}.reached").exists, folder / "engine.log")
            act()
            (folder / f"{cue}.go").touch()
        for text, act in (once_said or {}).items():
            wait_until(lambda text=text: text in log_of(folder), folder / "engine.log")
            act()
        return started.finish()

    def hold(self, size_bytes: int) -> None:
        """Has the neighbour hold so much, besides its context."""
        self.neighbour.command("release")
        if size_bytes:
            self.neighbour.command(f"hold {size_bytes}")


def log_of(folder: Path) -> str:
    return (folder / "engine.log").read_text(errors="replace")


def wait_until(holds: Callable[[], bool], log: Path) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline_s, log.read_text(errors="replace")[-3000:]
        time.sleep(0.01)


def report(result: EngineResult) -> Mapping[str, Any]:
    """The worker's."""
    (path,) = (result.log_path.parent / "memacct").glob("vllm-*-rank0.json")
    found: Mapping[str, Any] = json.loads(path.read_text())
    return found


def rows(result: EngineResult) -> dict[str, Mapping[str, Any]]:
    """Who held what when it did not fit, by name."""
    return {row["name"]: row for row in report(result)["shortfall"]["rows"]}


def suggestion(result: EngineResult, change: str) -> Any:
    """The value of the one suggestion of this kind."""
    suggestions = report(result)["shortfall"]["suggestions"]
    (value,) = (each["value"] for each in suggestions if each["change"] == change)
    return value
