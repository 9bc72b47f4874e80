"""Programs of tests/cpp, built with a sanitizer by whatever compiler has it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FLAGS = ("-std=c++20", "-O0", "-g1", "-D_GLIBCXX_ASSERTIONS", "-pthread")


def _compile(
    compiler: str, sanitizer: str, program: Path, sources: list[Path]
) -> subprocess.CompletedProcess[str]:
    command = [compiler, *FLAGS, f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    command += ["-I", str(ROOT / "cpp" / "include"), *map(str, sources), "-o", str(program)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def _works(compiler: str, sanitizer: str, folder: Path) -> bool:
    """Returns whether what the compiler makes with the sanitizer runs on this machine."""
    empty = folder / "empty.cpp"
    empty.write_text("int main() {}\n")
    if _compile(compiler, sanitizer, folder / "empty", [empty]).returncode != 0:
        return False
    done = subprocess.run([folder / "empty"], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def built(folder: Path, name: str, sanitizer: str, *core_sources: str) -> Path:
    """Returns ``tests/cpp/<name>.cpp`` as a program in ``folder``.

    Args:
        folder: where it goes.
        name: the program's file without its suffix.
        sanitizer: what ``-fsanitize=`` gets. Skips the test where no compiler has it.
        core_sources: the files of ``cpp/src`` that it needs, without their suffixes.
    """
    candidates = (os.environ.get("CXX", "g++"), "g++", "clang++", "clang++-14")
    for compiler in dict.fromkeys(filter(None, map(shutil.which, candidates))):
        if _works(compiler, sanitizer, folder):
            break
    else:
        pytest.skip(f"no C++ compiler with -fsanitize={sanitizer}")
    sources = [ROOT / "tests" / "cpp" / f"{name}.cpp"]
    sources += [ROOT / "cpp" / "src" / f"{source}.cpp" for source in core_sources]
    done = _compile(compiler, sanitizer, folder / name, sources)
    assert done.returncode == 0, done.stderr
    return folder / name
