"""The texts that fuzzing has kept, replayed through the parsers under ASan and UBSan."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = {
    "smaps": ("smaps_text", "mapping_kind"),
    "kernel_text": ("mapping_kind", "proc_text", "cgroup_text", "system_text", "process_stat"),
    "recording": ("recording", "sample_record"),
}
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FLAGS = ("-std=c++20", "-O0", "-g1", "-D_GLIBCXX_ASSERTIONS")


def compile_program(
    compiler: str, program: Path, *sources: Path
) -> subprocess.CompletedProcess[str]:
    command = [compiler, *FLAGS, *SANITIZE, "-I", ROOT / "cpp" / "include", *sources, "-o", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if found is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("sanitizers")
    (folder / "empty.cpp").write_text("int main() {}\n")
    done = compile_program(found, folder / "empty", folder / "empty.cpp")
    if done.returncode != 0:
        pytest.skip(f"{found} has no sanitizers: {done.stderr.strip().splitlines()[-1]}")
    return found


@pytest.mark.parametrize("target", SOURCES)
def test_kept_texts_pass_every_check_of_the_fuzz_target(
    target: str, compiler: str, tmp_path: Path
) -> None:
    program = tmp_path / "replay"
    sources = [ROOT / "tests" / "cpp" / name for name in (f"fuzz_{target}.cpp", "replay.cpp")]
    sources += [ROOT / "cpp" / "src" / f"{name}.cpp" for name in SOURCES[target]]
    done = compile_program(compiler, program, *sources)
    assert done.returncode == 0, done.stderr
    corpus = sorted((ROOT / "tests" / "data" / "fuzz" / target).iterdir())
    replayed = subprocess.run(
        [program, *corpus], capture_output=True, text=True, timeout=120, check=False
    )
    named = replayed.stdout.splitlines()
    assert replayed.returncode == 0, f"{named[-1:]}: {replayed.stderr}"
    assert named == [str(file) for file in corpus]
