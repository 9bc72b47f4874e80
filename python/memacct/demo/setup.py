"""What the demo needs before its first engine: an environment with vLLM, and a model."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct._errors import MemacctError

from .engine import ENGINE_SIDE

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_ENVIRONMENT = Path(".venv-gpu")
ABOUT = """
import importlib.metadata as metadata, json
def version(name):
    try: return metadata.version(name)
    except metadata.PackageNotFoundError: return None
names = [p.name for p in metadata.entry_points(group="vllm.general_plugins")]
print(json.dumps({"vllm": version("vllm"), "torch": version("torch"),
                  "memacct": version("memacct"), "plugins": names}))
"""


class SetupError(MemacctError):
    """Something is missing that the demo does not make by itself."""


def engine_python(given: Path | None = None) -> Path:
    """The interpreter of the environment that has vLLM.

    Args:
        given: by the user; default MEMACCT_ENGINE_PYTHON, then .venv-gpu here.

    Raises:
        SetupError: there is none, or it lacks vLLM or memacct.
    """
    named = os.environ.get("MEMACCT_ENGINE_PYTHON")
    python = given or (Path(named) if named else DEFAULT_ENVIRONMENT / "bin" / "python")
    if not python.exists():
        raise SetupError(f"{python} is not there: `make demo` sets up an environment with vLLM")
    # Absolute, but not resolved: a virtual environment's python is a link to another.
    return Path(os.path.abspath(python))  # noqa: PTH100


def about_engine(python: Path) -> dict[str, Any]:
    """Versions of vLLM, torch and memacct in the engine's environment.

    Raises:
        SetupError: vLLM or memacct's plugin is not installed there.
    """
    done = subprocess.run([python, "-c", ABOUT], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"{python} does not run: {done.stderr.strip()}")
    about: dict[str, Any] = json.loads(done.stdout)
    if about["vllm"] is None:
        raise SetupError(f"{python} has no vLLM: `make demo` sets up an environment with it")
    if "memacct" not in about["plugins"]:
        raise SetupError(f"{python} has no memacct: {python} -m pip install --no-deps .")
    return about


def make_model(python: Path, folder: Path, progress: Callable[[str], None]) -> Path:
    """A small model with random weights, made once; returns its folder.

    Raises:
        SetupError: the engine's environment could not make it.
    """
    if (folder / "model.safetensors").exists():
        return folder
    progress(f"making a small model with random weights in {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(folder.name + ".part")
    done = subprocess.run(
        [python, ENGINE_SIDE / "memacct_make_model.py", part],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SetupError(f"the model could not be made: {done.stderr.strip()[-500:]}")
    part.replace(folder)
    return folder
