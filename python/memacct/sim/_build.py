"""Builds the CUDA runtime of the simulated GPU against installed CUDA wheels.

The driver and NVML are the package's own; what is built here is libcudart, libcublas,
libcublasLt and libnccl, whose structures and export tables follow the wheels of one Python
environment. Results are kept in the user's cache under a key of all that went into them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memacct._errors import ConfigError, SourceUnavailableError
from memacct.sim._libraries import CORE, DRIVER, package_directory

Progress = Callable[[str], None]

_FLAGS = ("-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-w")
_OLDEST_CUDA = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wheels:
    """The installed wheels that a build follows."""

    cuda: int  # major version
    runtime: Path
    cublas: Path
    nccl: Path
    headers: tuple[Path, ...]
    bundled: tuple[str, ...]  # copies of libcudart under names that wheels made up


@dataclass(frozen=True, slots=True, kw_only=True)
class _Library:
    """One library to build: its sources and the real one whose functions it shall have."""

    name: str
    sources: tuple[str, ...]
    like: Path
    versioned: bool = True
    other_names: tuple[str, ...] = ()


def build_runtime(
    *,
    python: str | os.PathLike[str] | None = None,
    site: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Builds the runtime libraries, unless the same build is there; returns their directory.

    Args:
        python: the Python whose CUDA wheels are followed; default this one.
        site: or its site-packages directory.
        out: where the libraries go; default the user's cache, by content.
        force: build even if they are there.
        progress: is told each step.

    Raises:
        ConfigError: the environment has no CUDA wheels, or a header package is missing.
        SourceUnavailableError: no C++ compiler, or memacct was built without the simulation.
    """
    say = progress or (lambda _: None)
    site_packages = Path(site) if site is not None else _site_of(python or sys.executable)
    wheels = _find_wheels(site_packages)
    compiler = _compiler()
    key = _key(wheels, compiler)
    where = Path(out) if out is not None else _cache_directory() / key
    stamp = where / "key"
    with _lock(where):
        if not force and stamp.exists() and stamp.read_text() == key:
            say(f"already built: {where}")
            return where
        with tempfile.TemporaryDirectory(dir=where.parent, prefix=".building-") as scratch:
            work = Path(scratch)
            _build(wheels, compiler, work, say)
            where.mkdir(exist_ok=True)
            stamp.unlink(missing_ok=True)
            for name in _names(wheels):
                (work / name).replace(where / name)
            stamp.write_text(key)
    say(f"built: {where}")
    return where


def _site_of(python: str | os.PathLike[str]) -> Path:
    script = "import sysconfig; print(sysconfig.get_path('platlib'))"
    try:
        # -I -S: neither the user's nor the simulation's settings reach it.
        done = subprocess.run(
            [python, "-I", "-c", script], check=True, text=True, capture_output=True, env={}
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"python={os.fspath(python)!r} cannot be run: {error}") from error
    return Path(done.stdout.strip())


def _find_wheels(site: Path) -> _Wheels:
    """What `site` holds. Since CUDA 13, NVIDIA's wheels share one folder."""
    nvidia = site / "nvidia"
    shared = sorted(nvidia.glob("cu[1-9][0-9]"))
    if shared:
        runtime = cublas = shared[-1]
        cuda = int(runtime.name[2:])
        headers: tuple[Path, ...] = (runtime / "include", runtime / "include" / "cccl")
    else:
        cuda, runtime, cublas = _OLDEST_CUDA, nvidia / "cuda_runtime", nvidia / "cublas"
        parts = (runtime, cublas, nvidia / "cuda_nvcc", nvidia / "cuda_cccl")
        headers = tuple(part / "include" for part in parts)
    nccl = nvidia / "nccl"
    if not (runtime / "lib" / f"libcudart.so.{cuda}").exists():
        raise ConfigError(
            f"{site} has no CUDA build of PyTorch (pip install torch; a program that uses only the "
            "driver and NVML runs without: --no-runtime, runtime=False)"
        )
    _check_headers(headers, cuda)
    bundled = sorted(p.name for p in site.glob(f"*.libs/libcudart.*.so.{cuda}"))
    return _Wheels(
        cuda=cuda,
        runtime=runtime,
        cublas=cublas,
        nccl=nccl,
        headers=(*headers, nccl / "include"),
        bundled=tuple(bundled),
    )


def _check_headers(headers: tuple[Path, ...], cuda: int) -> None:
    if cuda == _OLDEST_CUDA:
        packages = {
            "crt/host_config.h": "nvidia-cuda-nvcc-cu12==12.8.*",
            "nv/target": "nvidia-cuda-cccl-cu12==12.8.*",
        }
    else:
        packages = {
            "crt/host_config.h": f"nvidia-cuda-crt=={cuda}.0.*",
            "nv/target": f"nvidia-cuda-cccl=={cuda}.0.*",
        }
    lacking = [
        package
        for header, package in packages.items()
        if not any((place / header).exists() for place in headers)
    ]
    if lacking:
        quoted = " ".join(f"'{package}'" for package in lacking)
        raise ConfigError(
            f"headers that the CUDA runtime's own include are missing: "
            f"pip install --no-deps {quoted}"
        )


def _compiler() -> str:
    for name in (os.environ.get("CXX"), "c++", "g++"):
        if name and shutil.which(name) and shutil.which("nm"):
            return name
    raise SourceUnavailableError(
        "memacct.sim", "needs a C++ compiler and nm (Debian: apt install g++)"
    )


def _libraries(wheels: _Wheels) -> tuple[_Library, ...]:
    cuda = wheels.cuda
    parts = ("device", "launch", "memory", "pool", "stream")
    return (
        _Library(
            name=f"libcudart.so.{cuda}",
            sources=(*(f"cudart_{part}.cpp" for part in parts), "fatbin.cpp", "kernels.cpp"),
            like=wheels.runtime / "lib" / f"libcudart.so.{cuda}",
            other_names=wheels.bundled,
        ),
        _Library(
            name=f"libcublas.so.{cuda}",
            sources=("cublas.cpp",),
            like=wheels.cublas / "lib" / f"libcublas.so.{cuda}",
        ),
        _Library(
            name=f"libcublasLt.so.{cuda}",
            sources=("cublaslt.cpp",),
            like=wheels.cublas / "lib" / f"libcublasLt.so.{cuda}",
        ),
        _Library(
            name="libnccl.so.2",
            sources=("nccl.cpp",),
            like=wheels.nccl / "lib" / "libnccl.so.2",
            versioned=False,
        ),
    )


def _names(wheels: _Wheels) -> list[str]:
    return [n for library in _libraries(wheels) for n in (library.name, *library.other_names)]


def _key(wheels: _Wheels, compiler: str) -> str:
    """A digest of all that a build's result depends on."""
    digest = hashlib.sha256()
    package = package_directory()
    sources = (p for p in (package / "src").rglob("*") if p.suffix in (".cpp", ".hpp", ".py"))
    own = [*sorted(sources), package / "lib" / CORE, package / "lib" / DRIVER]
    headers = ("cuda_runtime_api.h", "driver_types.h", "cublas_api.h", "cublasLt.h", "nccl.h")
    found = [place / header for header in headers for place in wheels.headers]
    for path in (*own, *(path for path in found if path.exists())):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for library in _libraries(wheels):
        # Hundreds of MB: its size stands for the export table, beside the headers' text.
        digest.update(f"{library.like.name} {library.like.stat().st_size}\n".encode())
    digest.update(" ".join((compiler, *_FLAGS, *wheels.bundled)).encode())
    return digest.hexdigest()[:32]


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "memacct" / "sim-runtime"


@contextmanager
def _lock(where: Path) -> Iterator[None]:
    """Lets one builder work at a time; another one then finds the result."""
    where.parent.mkdir(parents=True, exist_ok=True)
    with (where.parent / f".{where.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str], what: str) -> None:
    # The caller may itself be on the simulated GPU: the compiler shall not be.
    environ = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "LD_AUDIT")}
    done = subprocess.run(command, check=False, text=True, capture_output=True, env=environ)
    if done.returncode != 0:
        raise ConfigError(f"{what} failed: {' '.join(command)}\n{done.stderr[-4000:]}")


def _build(wheels: _Wheels, compiler: str, work: Path, say: Progress) -> None:
    libraries = _libraries(wheels)
    sources = [source for library in libraries for source in library.sources]
    includes = [text for place in wheels.headers for text in ("-isystem", str(place))]
    code = package_directory() / "src"

    def compile_one(source: str) -> None:
        target = work / f"{source}.o"
        path = code / "runtime" / source
        _run(
            [compiler, *_FLAGS, *includes, "-c", str(path), "-o", str(target)],
            f"compiling {source}",
        )
        say(f"compiled {source}")

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(compile_one, sources))
    generator = runpy.run_path(str(code / "gen_stubs.py"))
    for library in libraries:
        _link(library, compiler, work, generator)
        say(f"linked {library.name}")


def _link(library: _Library, compiler: str, work: Path, generator: dict[str, Any]) -> None:
    objects = [work / f"{source}.o" for source in library.sources]
    stubs = work / f"{library.name}_stubs.c"
    version_map = work / f"{library.name}.map" if library.versioned else None
    generator["make_like"](library.like, objects, stubs, version_map)
    stub_object = stubs.with_suffix(".o")
    _run(
        [compiler, "-x", "c", "-O1", "-fPIC", "-w", "-c", str(stubs), "-o", str(stub_object)],
        f"compiling the stubs of {library.name}",
    )
    script = [f"-Wl,--version-script,{version_map}"] if version_map else []
    for name in (library.name, *library.other_names):
        _run(
            [
                compiler,
                "-shared",
                f"-Wl,-soname,{name}",
                *script,
                *map(str, (*objects, stub_object)),
                *("-o", str(work / name)),
                f"-L{package_directory() / 'lib'}",
                *("-lmemacct_sim_core", f"-l:{DRIVER}"),
            ],
            f"linking {name}",
        )
