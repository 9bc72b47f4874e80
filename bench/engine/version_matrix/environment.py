"""One virtual environment per vLLM version, made by the recipe and removed after its run."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .recipe import header_packages, make_recipe, torch_of

if TYPE_CHECKING:
    from .versions import Target

Progress = Callable[[str], None]

INSTALL_LIMIT_S = 1800
# Told at the end of an error: pip's last lines name the cause.
ERROR_LENGTH = 600
ABOUT = """
import importlib.metadata as metadata, json, platform, sys
def version(*names):
    for name in names:
        try: return metadata.version(name)
        except metadata.PackageNotFoundError: pass
    return None
import torch
print(json.dumps({"python": platform.python_version(), "torch": torch.__version__,
                  "cuda": torch.version.cuda, "transformers": version("transformers"),
                  "runtime": version("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12")}))
"""


class InstallError(RuntimeError):
    """The environment of a version could not be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A virtual environment in ``folder``, made of the interpreter ``base``."""

    folder: Path
    base: str = sys.executable

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def installers(self) -> list[list[str]]:
        """Commands that install, to be tried in turn: uv where there is one, as it is faster."""
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        commands = [[*pip, "--no-cache-dir"]]
        if uv := shutil.which("uv", path=path):
            # A cache doubles the gigabytes, unless it is wanted: several versions share a torch.
            cache = [] if "UV_CACHE_DIR" in os.environ else ["--no-cache"]
            uv_pip = [uv, "pip", "install", "--python", str(self.python), *cache, "--quiet"]
            commands.insert(0, uv_pip)
        return commands

    def install(self, *arguments: str) -> None:
        """Installs; pip's options that are given must be uv's too.

        Raises:
            InstallError: it did not succeed; the end of what the last installer said.
        """
        error: InstallError | None = None
        for command in self.installers():
            try:
                run([*command, *arguments], environ=installer_environ(os.environ))
            except InstallError as raised:  # noqa: PERF203 - two installers
                error = raised
            else:
                return
        raise error or InstallError("there is no installer")

    def remove(self) -> None:
        """Takes it off the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


def installer_environ(base: Mapping[str, str]) -> dict[str, str]:
    """``base`` with pip's indexes for uv as well, which has variables of its own."""
    same = {
        "UV_DEFAULT_INDEX": "PIP_INDEX_URL",
        "UV_INDEX": "PIP_EXTRA_INDEX_URL",
        "UV_FIND_LINKS": "PIP_FIND_LINKS",
    }
    pips = {uv: base[pip] for uv, pip in same.items() if pip in base}
    return {**pips, **base}


def run(
    command: list[str],
    limit_s: float = INSTALL_LIMIT_S,
    environ: Mapping[str, str] | None = None,
) -> str:
    """Runs a command and returns what it printed.

    Raises:
        InstallError: it failed or took longer than ``limit_s``.
    """
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=limit_s, env=environ
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(str(error)) from error
    if done.returncode != 0:
        raise InstallError((done.stderr or done.stdout).strip()[-ERROR_LENGTH:])
    return done.stdout


def make(
    target: Target, environment: Environment, memacct: Path | None, say: Progress
) -> dict[str, Any]:
    """Makes the environment, or completes the one that is there; says what is in it.

    Args:
        memacct: the wheel of memacct, which is installed anew each time; None: an engine alone.

    Raises:
        InstallError: something could not be installed.
    """
    done = environment.folder / ".matrix-done"
    if not done.exists():
        environment.remove()
        say(f"[1/5] environment {environment.folder}")
        run([environment.base, "-m", "venv", str(environment.folder)])
        install_engine(target, environment, say)
        say("[4/5] byte code")
        compile_sources(environment)
        done.touch()
    if memacct is not None:
        say("[5/5] memacct")
        environment.install("--no-deps", "--force-reinstall", str(memacct))
    about: dict[str, Any] = json.loads(run([str(environment.python), "-c", ABOUT]))
    return about


def install_engine(target: Target, environment: Environment, say: Progress) -> None:
    """vLLM first, for its metadata; then what that says it needs."""
    say(f"[2/5] {target.distribution} {target.version}")
    environment.install("--no-deps", f"{target.distribution}=={target.version}")
    recipe = make_recipe(declared(target, environment), target)
    torch = torch_of(recipe.requirements)
    say(f"[3/5] torch {torch} and what else it needs, without {' '.join(recipe.left_out)}")
    requirements = list(recipe.requirements)
    if torch is not None:
        build = cpu_torch(torch, environment) if target.is_cpu else cuda_torch(torch)
        requirements = [*without_torch(requirements), build]
    lists = {"requirements.txt": requirements, "constraints.txt": recipe.constraints}
    for name, lines in lists.items():
        (environment.folder / name).write_text("\n".join(lines) + "\n")
    listed = (str(environment.folder / name) for name in lists)
    environment.install("-r", next(listed), "-c", next(listed), "typer", "rich")
    if not target.is_cpu:
        about = json.loads(run([str(environment.python), "-c", ABOUT]))
        if about["runtime"] is None:
            raise InstallError(f"torch {about['torch']} brought no CUDA runtime")
        environment.install("--no-deps", *header_packages(about["runtime"]))


def compile_sources(environment: Environment) -> None:
    """Byte code of all that is installed: uv leaves it out.

    Without it, and where PYTHONDONTWRITEBYTECODE is set, each process of each start compiles
    torch and vLLM again, 15 to 40 s of it.
    """
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [str(environment.python), "-m", "compileall", "-qq", "-j", "0"]
    site = [str(path) for path in environment.folder.glob("lib/python*/site-packages")]
    # Its status tells only of sources that no Python reads, such as templates.
    subprocess.run([*command, *site], check=False, capture_output=True, env=environ)


def declared(target: Target, environment: Environment) -> list[str]:
    """What the installed wheel's metadata says that it needs."""
    site = next(environment.folder.glob("lib/python*/site-packages"))
    names = {target.distribution, target.distribution.replace("-", "_")}
    for name in names:
        for found in importlib.metadata.distributions(name=name, path=[str(site)]):
            return list(found.requires or ())
    raise InstallError(f"{target.distribution} has no metadata in {site}")


def without_torch(requirements: list[str]) -> list[str]:
    """The requirements less torch's own lines, one for each platform."""
    return [line for line in requirements if torch_of([line]) is None]


def cuda_torch(version: str) -> str:
    """A requirement of the CUDA build: a CPU build that an index has too counts as newer."""
    return f"torch=={version},!={version}+cpu"


def cpu_torch(version: str, environment: Environment) -> str:
    """A requirement of the CPU build where an index or a folder of wheels has it, else of any."""
    build = f"torch=={version}+cpu"
    try:
        environment.install("--no-deps", build)
    except InstallError:
        return f"torch=={version}"
    return build
