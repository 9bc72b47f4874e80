"""Measures the costs on a real GPU: a PyTorch program, NCCL between GPUs, one engine start."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from memacct._core import driver_diagnosis, snapshot
from memacct._errors import ConfigError, SourceUnavailableError
from memacct.calibration.figures import engine_figures, nccl_figures, torch_figures
from memacct.calibration.standing import Mark, StandingProgram
from memacct.dry_run.calibration_file import Calibration, default_path, write_calibration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_GRAPHS = 32  # of each number of nodes: the driver takes pages of 2 MiB
_NODES = (1, 64, 256)
_PROGRAM_LIMIT_S = 120.0
_ENGINE_LIMIT_S = 600.0
_MOST_RANKS = 8
_MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What every program of one calibration shares."""

    python: str
    environ: Mapping[str, str]
    folder: Path

    def program(
        self, name: str, *arguments: object, limit_s: float = _PROGRAM_LIMIT_S, log: str = ""
    ) -> StandingProgram:
        file = resources.files("memacct.calibration") / "engine_side" / name
        return StandingProgram(
            [self.python, "-W", "ignore", str(file), *map(str, arguments)],
            environ=self.environ,
            log=self.folder / f"{name}{log}.log",
            limit_s=limit_s,
        )


def calibrate(
    *,
    python: str | os.PathLike[str] | None = None,
    device: int = 0,
    out: Path | None = None,
    repeats: int = 3,
    engine: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Measures what a dry run cannot see, on this machine's GPU, and writes the file.

    Args:
        python: of the environment with vLLM; default this one.
        device: the GPU, counted as CUDA does among the visible ones.
        out: the file; default the user's, where dry runs find it.
        repeats: how often the PyTorch program is run, for the spread.
        engine: also start an engine; without it what its kernels take stays unknown.
        say: called with a line for people about what goes on.

    Raises:
        SourceUnavailableError: no GPU here.
        ConfigError: `python` has no CUDA build of torch, or no vLLM; or `out` is another file.
        CalibrationError: a program ended or hung.
    """
    if not snapshot(host="counters", devices="all").devices:
        raise SourceUnavailableError(
            "memacct calibrate", "there is no GPU here: it measures a real one"
        )
    if repeats < 1:
        raise ConfigError(f"repeats={repeats}: at least one run")
    with tempfile.TemporaryDirectory(prefix="memacct-calibrate-") as folder:
        place = _Place(
            python=_interpreter(python, with_engine=engine),
            environ=_environ(_only(device)),
            folder=Path(folder),
        )
        found = _measure(place, repeats=repeats, engine=engine, say=say)
    write_calibration(out or default_path(), found)
    return found


def _measure(
    place: _Place, *, repeats: int, engine: bool, say: Callable[[str], None]
) -> Calibration:
    say(f"a PyTorch program, {repeats} times: context, cuBLAS, graphs")
    runs = [_torch_marks(place) for _ in range(repeats)]
    about, by_process = runs[0][0].told, all(mark.by_process for run in runs for mark in run)
    figures = torch_figures(runs, _GRAPHS)
    everyone = replace(place, environ=_environ(os.environ.get("CUDA_VISIBLE_DEVICES")))
    ranks = min(_visible_count(everyone), _MOST_RANKS)
    if ranks > 1:
        say(f"NCCL between {ranks} GPUs")
        figures |= nccl_figures(_nccl_marks(everyone, ranks))
    vllm = None
    if engine:
        say("one start of a small engine: kernels that are loaded lazily")
        marks = _engine_marks(place)
        vllm = str(marks[-1].told["vllm"])
        figures |= engine_figures(marks)
    note = "the driver does not tell this process's memory: all that the GPU holds was read instead"
    return Calibration(
        card=str(about["card"]),
        driver=str(driver_diagnosis()["nvml"]["driver_version"] or "unknown"),
        torch=str(about["torch"]),
        cuda=str(about["cuda"]),
        vllm=vllm,
        when=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        gpus=ranks,
        wsl="microsoft" in os.uname().release.lower(),
        figures=figures,
        notes=() if by_process else (note,),
    )


def _torch_marks(place: _Place) -> list[Mark]:
    names = ("context", "cublas", "graphs 0", *(f"graphs {nodes}" for nodes in _NODES))
    with place.program("memacct_torch_costs.py", _GRAPHS, *_NODES) as program:
        return [program.at(name) for name in names]


def _nccl_marks(place: _Place, ranks: int) -> list[list[Mark]]:
    """Of each rank; all stand still at a mark before any goes on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    marks: list[list[Mark]] = [[] for _ in range(ranks)]
    with contextlib.ExitStack() as stack:
        programs = [
            stack.enter_context(
                place.program("memacct_nccl_costs.py", rank, ranks, port, log=f".{rank}")
            )
            for rank in range(ranks)
        ]
        for name in ("context", "made", "connected"):
            for program, found in zip(programs, marks, strict=True):
                found.append(program.next(name))
            for program in programs:
                program.go()
    return marks


def _engine_marks(place: _Place) -> list[Mark]:
    model = place.folder / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(_MODEL), encoding="utf-8")
    with place.program("memacct_engine_costs.py", model, limit_s=_ENGINE_LIMIT_S) as program:
        return [program.at(name) for name in ("context", "initialised", "profiled")]


def _interpreter(python: str | os.PathLike[str] | None, *, with_engine: bool) -> str:
    """The interpreter, checked for what it must have, without importing that."""
    found = shutil.which(os.fspath(python or sys.executable))
    if found is None:
        raise ConfigError(f"--python {os.fspath(python or '')}: there is no such interpreter")
    wanted = ("torch", "vllm") if with_engine else ("torch",)
    code = (
        f"from importlib.util import find_spec; print(*[n for n in {wanted} if not find_spec(n)])"
    )
    done = subprocess.run([found, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode != 0 or done.stdout.strip():
        lacking = done.stdout.strip().replace(" ", " and ") or "a Python that runs"
        raise ConfigError(f"{found} lacks {lacking}: name the engine's with --python")
    return found


def _only(device: int) -> str:
    """The value of CUDA_VISIBLE_DEVICES that leaves one of the GPUs that the user lets CUDA see."""
    visible = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    if visible and device >= len(visible):
        raise ConfigError(f"--device {device}: CUDA_VISIBLE_DEVICES names {len(visible)}")
    return visible[device] if visible else str(device)


def _environ(visible: str | None) -> dict[str, str]:
    """The environment of programs that see these GPUs; None: all."""
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environ.pop("CUDA_VISIBLE_DEVICES", None)
    return environ if visible is None else {**environ, "CUDA_VISIBLE_DEVICES": visible}


def _visible_count(place: _Place) -> int:
    """GPUs that programs there see, as torch counts them; one where it cannot be asked."""
    code = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run(
        [place.python, "-W", "ignore", "-c", code],
        env=place.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return int(done.stdout) if done.returncode == 0 else 1
