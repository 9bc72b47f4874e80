"""What the runtime's build says when something that it needs is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from memacct._errors import ConfigError
from memacct.sim import build_runtime
from memacct.sim._programs import python_of

if TYPE_CHECKING:
    from pathlib import Path


def test_no_cuda_wheels(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no CUDA build of PyTorch \(pip install torch;"):
        build_runtime(site=tmp_path)


def test_missing_header_packages(tmp_path: Path) -> None:
    library = tmp_path / "nvidia" / "cu13" / "lib" / "libcudart.so.13"
    library.parent.mkdir(parents=True)
    library.touch()
    with pytest.raises(ConfigError, match=r"'nvidia-cuda-crt==13\.0\.\*' 'nvidia-cuda-cccl==13"):
        build_runtime(site=tmp_path)
    crt = tmp_path / "nvidia" / "cu13" / "include" / "crt" / "host_config.h"
    crt.parent.mkdir(parents=True)
    crt.touch()
    with pytest.raises(ConfigError, match="--no-deps 'nvidia-cuda-cccl==13"):
        build_runtime(site=tmp_path)


def test_no_such_python(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be run"):
        build_runtime(python=tmp_path / "python")


def test_the_python_of_a_program(tmp_path: Path) -> None:
    python, script = tmp_path / "python3", tmp_path / "serve"
    for path, text in ((python, "#!/bin/sh\n"), (script, f"#!{python} -I\n")):
        path.write_text(text)
        path.chmod(0o755)
    assert python_of(str(python)) == str(python)
    assert python_of(str(script)) == str(python)
