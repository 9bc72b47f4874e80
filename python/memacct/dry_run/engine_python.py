"""Which interpreter has the engine, and which version of it, found without importing it."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from memacct._errors import ConfigError

_ABOUT = """
from importlib import metadata
for name in ("vllm", "torch"):
    try: print(name, metadata.version(name))
    except metadata.PackageNotFoundError: print(name, "-")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An environment with vLLM.

    Attributes:
        python: its interpreter; absolute, not resolved: a virtual environment's is a link.
    """

    python: Path
    vllm: str
    torch: str


def find_python(given: str | os.PathLike[str] | None = None) -> Path:
    """The interpreter whose vLLM is to run.

    Args:
        given: by the user; default MEMACCT_ENGINE_PYTHON, then that of the `vllm` on PATH, then
            this one.

    Raises:
        ConfigError: what was given is not there, or no vLLM is found.
    """
    for source, named in (
        ("--python", given),
        ("MEMACCT_ENGINE_PYTHON", os.environ.get("MEMACCT_ENGINE_PYTHON")),
    ):
        if named:
            found = shutil.which(os.fspath(named))
            if found is None:
                raise ConfigError(f"{source}: {os.fspath(named)} is no interpreter")
            return Path(os.path.abspath(found))  # noqa: PTH100 (resolve() would leave the venv)
    program = shutil.which("vllm")
    if program is not None and (python := _shebang(Path(program))) is not None:
        return python
    if _has_vllm():
        return Path(sys.executable)
    raise ConfigError(
        "no vLLM: neither on PATH nor in memacct's own Python; --python names the interpreter of "
        "the environment that has it"
    )


@functools.cache
def about(python: Path) -> Engine:
    """The versions in an interpreter's environment.

    Raises:
        ConfigError: it does not run, or has no vLLM.
    """
    done = subprocess.run([python, "-I", "-c", _ABOUT], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConfigError(f"{python} does not run: {done.stderr.strip()[-300:]}")
    found = dict(line.split() for line in done.stdout.splitlines())
    if found["vllm"] == "-":
        raise ConfigError(f"{python} has no vLLM: --python names an interpreter that has it")
    return Engine(python=python, vllm=found["vllm"], torch=found["torch"])


def _shebang(program: Path) -> Path | None:
    """The interpreter that a script names.

    In its first line; pip and uv name one whose path is too long for that, or has a space, in the
    second: ``#!/bin/sh`` and ``'''exec' "/a path/bin/python" "$0" "$@"``.
    """
    with program.open("rb") as file:
        lines = file.read(8192).decode(errors="replace").splitlines()[:2]
    if not lines or not lines[0].startswith("#!"):
        return None
    for line in (lines[0][2:], *lines[1:]):
        try:
            named = next(filter(_is_python, shlex.split(line)), None)
        except ValueError:  # it is none of a shell's
            continue
        if named is not None and (found := shutil.which(named)) is not None:
            return Path(found)
    return None


def _is_python(word: str) -> bool:
    return re.fullmatch(r"python[0-9.]*", word.rpartition("/")[2]) is not None


def _has_vllm() -> bool:
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return False
    return True
