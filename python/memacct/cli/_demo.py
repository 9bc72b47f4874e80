"""``memacct demo``: real vLLM engines beside neighbours that move, stock and native."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from memacct._errors import ConfigError

WORK = Path(".memacct/demo")
# Columns where the output goes to a file, which has no width of its own.
FILE_WIDTH = 140


def demo(
    scenarios: Annotated[
        str, typer.Option(help="Which to run, by their letters; default all: abcdefg.")
    ] = "",
    engine_python: Annotated[
        Path | None,
        typer.Option(help="Python of the environment with vLLM; default .venv-gpu here."),
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Use the simulated GPU even if there is a real one.")
    ] = False,
    work: Annotated[Path, typer.Option(help="Folder for the model and the logs.")] = WORK,
    json_path: Annotated[Path, typer.Option("--json", help="Where the results go as data.")] = Path(
        "memacct-demo.json"
    ),
) -> None:
    """Run each scenario alone, stock and native; exit non-zero if native is off."""
    from memacct import demo as package
    from memacct.demo.setup import about_engine, make_model
    from memacct.demo.setup import engine_python as find_python

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=FILE_WIDTH)
    started_s = time.monotonic()

    def progress(text: str) -> None:
        elapsed_s = time.monotonic() - started_s
        console.print(f"[dim]{elapsed_s:5.0f} s[/dim]  {_escape(text)}")

    chosen = _choose(scenarios, package.SCENARIOS)
    python = find_python(engine_python)
    about = about_engine(python)
    progress(f"vLLM {about['vllm']}, torch {about['torch']}, memacct {about['memacct']}")
    world = package.choose_world(python, simulate=simulate)
    if isinstance(world, package.SimulatedWorld) and world.reason is not None:
        progress(f"not on the real GPU: {world.reason}")
    console.rule(f"The engines run on [bold]{world.name}[/bold]")
    if world.simulated or any(s.host_pids or s.device_count > 1 for s in chosen):
        from memacct.sim import build_runtime

        build_runtime(python=python, progress=progress)
    folder = work.absolute()
    bench = package.Bench(
        python=python, model=make_model(python, folder / "model", progress), folder=folder / "runs"
    )
    runner = package.Runner(bench, world, progress, starts_count=package.count_starts(chosen))
    rows = [row for scenario in chosen for row in _rows(package, runner, scenario)]
    console.print(package.render(rows, world.name))
    about |= {"gpu": world.name, "simulated": world.simulated}
    package.write_json(json_path, rows, about | {"elapsed_s": time.monotonic() - started_s})
    console.print(f"as data: {json_path}; logs: {folder / 'runs'}")
    if not all(row.ok for row in rows):
        raise typer.Exit(1)


def _choose(letters: str, scenarios: Any) -> list[Any]:
    known = {scenario.key: scenario for scenario in scenarios}
    for letter in letters:
        if letter not in known:
            raise ConfigError(f"scenarios={letters!r}: {letter!r} is not one of {', '.join(known)}")
    return [known[letter] for letter in letters] if letters else list(scenarios)


def _rows(package: Any, runner: Any, scenario: Any) -> list[Any]:
    isolated = runner.isolated(scenario)
    stock = runner.outcomes(scenario, "stock")
    native = runner.outcomes(scenario, "native")
    together = zip(isolated, stock, native, strict=True)
    return [package.judge(scenario, i, *results) for i, results in enumerate(together)]


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
