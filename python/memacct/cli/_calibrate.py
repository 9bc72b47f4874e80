"""``memacct calibrate``: measures on a real GPU what dry runs cannot see."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def calibrate(
    python: Annotated[
        str | None, typer.Option(help="Python of the environment with vLLM; default memacct's own.")
    ] = None,
    device: Annotated[int, typer.Option(help="The GPU, as CUDA counts those it may see.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="The file; default the user's, where dry runs find it.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Runs of the PyTorch program, for the spread.")] = 3,
    engine: Annotated[
        bool, typer.Option(help="Start an engine too, for what its kernels take.")
    ] = True,
) -> None:
    """Measure what contexts, kernels, cuBLAS, NCCL and CUDA graphs take on this machine's GPU.

    Needs a GPU with some GiB free and a minute or two. Dry runs for this card use the file.
    Exit status: 0 done; 2 it cannot be done here.
    """
    from memacct.calibration import calibrate as measure
    from memacct.calibration.words import words
    from memacct.dry_run.calibration_file import default_path

    path = out or default_path()
    found = measure(
        python=python, device=device, out=path, repeats=repeats, engine=engine, say=_say
    )
    print(words(found, path))


def _say(line: str) -> None:
    typer.echo(line, err=True)
