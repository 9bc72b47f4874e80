"""``memacct sim``: the simulated GPU from a shell."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from memacct._errors import ConfigError
from memacct._units import format_bytes
from memacct.sim import DeviceStatus, SimulatedGpu, Tenant, build_runtime
from memacct.sim._card import card_settings
from memacct.sim._programs import python_of
from memacct.sim.scenarios import SCENARIOS

app = typer.Typer(help="A simulated GPU that real processes share.", no_args_is_help=True)

# As of shells; the program's own status is passed on.
_NOT_FOUND = 127

Machine = Annotated[
    str, typer.Option(help="Name of the machine; commands of the same name share its GPUs.")
]


@app.command()
def build(
    site: Annotated[
        Path | None, typer.Option(help="site-packages that holds the CUDA wheels.")
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Or the Python of that environment; default this one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the libraries go; default the user's cache.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if they are there.")] = False,
) -> None:
    """Build the CUDA runtime, cuBLAS and NCCL for an unmodified CUDA build of PyTorch."""
    where = build_runtime(python=python, site=site, out=out, force=force, progress=_say)
    print(where)


@app.command(context_settings={"allow_interspersed_args": False})
def run(  # noqa: PLR0917 (the command line's options)
    command: Annotated[list[str], typer.Argument(help="The program and its arguments.")],
    total: Annotated[
        str | None, typer.Option(help="Memory of each GPU, such as 32GiB; default an H100's.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", help="A card that is known, such as a100-80: its name, totals, SMs."),
    ] = None,
    count: Annotated[int | None, typer.Option(help="GPUs; default 1.")] = None,
    context: Annotated[
        str | None, typer.Option(help="What a process's context takes; default 400MiB.")
    ] = None,
    reserved: Annotated[str | None, typer.Option(help="What the driver keeps.")] = None,
    faults: Annotated[
        str | None, typer.Option(help="What the driver does wrong; see memacct.sim.Faults.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(help="A machine by name: memacct sim scenarios lists them.")
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(help="Python whose CUDA wheels are used; default the program's own."),
    ] = None,
    runtime: Annotated[
        bool, typer.Option(help="With the CUDA runtime; without it NVML and the driver only.")
    ] = True,
    machine: Machine = "default",
) -> None:
    """Run a program on the simulated GPU and exit as it does."""
    given = {
        "total_bytes": total,
        "count": count,
        "context_bytes": context,
        "reserved_bytes": reserved,
    }
    settings = {key: value for key, value in given.items() if value is not None}
    if gpu is not None:
        settings = {**card_settings(gpu), **settings}
    if shutil.which(command[0], mode=os.F_OK) is None:
        _say(f"memacct: {command[0]}: not found")
        raise typer.Exit(_NOT_FOUND)
    exe = python or python_of(command[0])
    wanted = _machine(machine, settings, scenario)  # a wrong name or size is told first
    if runtime:
        build_runtime(python=exe, progress=_say_building)
    with wanted as made:
        process = made.popen(command, runtime=runtime, python=exe, faults=faults)
        # Ctrl-C reaches the program too: it decides how it ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = process.wait()
    raise typer.Exit(code if code >= 0 else 128 - code)


@app.command()
def hold(  # noqa: PLR0917 (the command line's options)
    size: Annotated[str, typer.Argument(help="What it holds, such as 7GiB.")],
    device: Annotated[int, typer.Option(help="Index of the GPU.")] = 0,
    when: Annotated[
        list[str] | None,
        typer.Option(
            help="Condition KEY=VALUE, such as other_process_bytes=600MiB; all must hold."
        ),
    ] = None,
    then: Annotated[
        str | None, typer.Option(help="What it does then: free, free:SIZE or allocate:SIZE.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--for", help="Ends after that long; default never.")
    ] = None,
    machine: Machine = "default",
) -> None:
    """Be a neighbour that holds GPU memory."""
    if bool(when) != bool(then):
        raise ConfigError("--when and --then go together")
    with _machine(machine, {}) as gpu, gpu.tenant(size, device=device) as tenant:
        print(
            f"pid {tenant.pid} holds {format_bytes(tenant.held_bytes)} besides its context",
            flush=True,
        )
        if when and then:
            _act(tenant, tenant.when(then=then, **_conditions(when)), seconds)
        elif seconds is not None:
            time.sleep(seconds)
        else:
            signal.pause()


@app.command()
def scenarios() -> None:
    """List the machines that run --scenario knows."""
    width = max(map(len, SCENARIOS))
    for each in SCENARIOS.values():
        print(f"{each.name:{width}}  {each.description}")


@app.command()
def status(machine: Machine = "default") -> None:
    """Show who holds what."""
    with _machine(machine, {}) as gpu:
        for device in gpu.status().devices:
            _print_device(device)


def _machine(name: str, settings: dict[str, Any], scenario: str | None = None) -> SimulatedGpu:
    """The named machine as it is, unless settings or a scenario for it are given."""
    if scenario is not None:
        return SimulatedGpu.scenario(scenario, machine=name, **settings)
    if not settings and SimulatedGpu.exists(name):
        return SimulatedGpu.join(name)
    return SimulatedGpu(machine=name, **settings)


def _conditions(pairs: list[str]) -> dict[str, Any]:
    conditions: dict[str, Any] = {}
    numbers = {
        "pid",
        "launches",
        "cuda_memory_queries",
        "nvml_memory_queries",
        "nvml_process_queries",
        "graph_captures",
        "graph_instantiations",
    }
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in numbers | {"other_process_bytes", "file_exists"} or not value:
            allowed = ", ".join(sorted(numbers | {"other_process_bytes", "file_exists"}))
            raise ConfigError(f"--when {pair!r} is not KEY=VALUE with one of {allowed}")
        conditions[key] = int(value) if key in numbers else value
    return conditions


def _act(tenant: Tenant, condition: int, seconds: float | None) -> None:
    ends_s = time.monotonic() + (seconds or 0)
    action = tenant.wait_action(condition, timeout_s=seconds or float("inf"))
    outcome = action.error or f"now holds {format_bytes(action.held_bytes)}"
    print(f"{action.action} {format_bytes(action.bytes)}: {outcome}", flush=True)
    if seconds is None:
        signal.pause()
    time.sleep(max(0.0, ends_s - time.monotonic()))


def _print_device(device: DeviceStatus) -> None:
    print(
        f"GPU {device.index}  {format_bytes(device.free_bytes)} free of "
        f"{format_bytes(device.total_bytes)}, {format_bytes(device.reserved_bytes)} reserved, "
        f"{format_bytes(device.unattributed_bytes)} unattributed  {device.uuid}"
    )
    for process in device.processes:
        print(
            f"  pid {process.pid:<8} {format_bytes(process.process_used_bytes):>12}"
            f"  {process.launches_count} launches"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say_building(text: str) -> None:
    if not text.startswith("already"):
        _say(text)
