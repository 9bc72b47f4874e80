"""Builds memacct into a folder, without a network, from what a PyTorch image holds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .sessions import end_session

ROOT = Path(__file__).resolve().parents[3]


def build(folder: Path, limit_s: float) -> str:
    """Builds memacct so that `folder` can be put on Python's path; returns how.

    By pip and scikit-build-core, or where that fails by CMake itself, each in at most
    `limit_s`. The simulated GPU is left out.

    Raises:
        RuntimeError: neither works, with the ends of what they said.
    """
    failures = []
    for name, way in (("pip", _by_pip), ("cmake", _by_cmake)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            way(folder, limit_s)
            check = [sys.executable, "-c", "import memacct"]
            _run(check, limit_s, {"PYTHONPATH": str(folder)})
        except (RuntimeError, OSError) as error:
            failures.append(f"{name}: {error}")
        else:
            return name
    raise RuntimeError("memacct cannot be built here\n" + "\n".join(failures))


def _by_pip(folder: Path, limit_s: float) -> None:
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--no-compile", "-q"]
    settings = [
        f"--config-settings=build-dir={folder}.build",
        "--config-settings=cmake.define.MEMACCT_BUILD_SIM=OFF",
    ]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    _run([*pip, *options, *settings, "--target", str(folder), str(ROOT)], limit_s)


def _by_cmake(folder: Path, limit_s: float) -> None:
    shutil.copytree(ROOT / "python" / "memacct", folder / "memacct")
    cmake = shutil.which("cmake")
    command = [cmake] if cmake else [sys.executable, "-m", "cmake"]
    where = _run([sys.executable, "-m", "pybind11", "--cmakedir"], limit_s).strip()
    settings = {
        "CMAKE_BUILD_TYPE": "Release",
        "MEMACCT_BUILD_SIM": "OFF",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": where,
        "SKBUILD_PROJECT_VERSION": "0",
    }
    given = [f"-D{name}={value}" for name, value in settings.items()]
    made = f"{folder}.cmake"
    _run([*command, "-S", str(ROOT), "-B", made, *given], limit_s)
    _run([*command, "--build", made], limit_s)
    _run([*command, "--install", made, "--prefix", str(folder)], limit_s)


def _run(command: list[str], limit_s: float, env: dict[str, str] | None = None) -> str:
    parallel = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)}
    with subprocess.Popen(
        command,
        env={**parallel, **os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, errors = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"not done within {limit_s:.0f} s") from error
        finally:
            # The compilers too: they would go on for minutes beside the next attempt.
            end_session(process.pid)
    if process.returncode != 0:
        raise RuntimeError((errors or out).strip()[-1500:])
    return out
