"""CuTe-DSL answered: stood for where it is not installed, its compiler alone where it is."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from memacct.dry_run.engine_process import ENGINE_SIDE

if TYPE_CHECKING:
    from pathlib import Path

ROUTER = "vllm/model_executor/layers/fused_moe/router"
# As nvidia-cutlass-dsl 4.8: `cute.compile` is an object of a class in base_dsl.
INSTALLED = {
    "cutlass/__init__.py": "",
    "cutlass/base_dsl/__init__.py": "",
    "cutlass/base_dsl/compiler.py": (
        "class CompileCallable:\n"
        "    def __call__(self, function, *_, **__):\n"
        "        raise RuntimeError('would compile')\n"
        "    def __getitem__(self, options):\n        return CompileCallable()\n"
    ),
    "cutlass/cute.py": (
        "from cutlass.base_dsl.compiler import CompileCallable\ncompile = CompileCallable()\n"
    ),
}
VLLM = {
    **{f"{folder}/__init__.py": "" for folder in (
        "vllm", "vllm/model_executor", "vllm/model_executor/layers",
        "vllm/model_executor/layers/fused_moe", ROUTER,
    )},
    f"{ROUTER}/bf16x3_router_gemm_cutedsl.py": (
        "import cutlass\nimport cutlass.cute as cute\n@cute.jit\ndef kernel(): ...\n"
    ),
}  # fmt: skip
BEGIN = "import importlib, importlib.util, json, memacct_cutlass\n"
COMPILES = (
    BEGIN
    + """
told = {"stands": memacct_cutlass.apply(), "again": memacct_cutlass.apply()}
from cutlass import cute
def kernel(): ...
compiled = cute.compile["options"](kernel, 1)
compiled(2)
told["same"] = compiled is kernel
compiled.to("device").generate(3)
cute.compile(kernel, options="x")
print(json.dumps(told))
"""
)
WARMS_UP = (
    BEGIN
    + """
told = {"stands": memacct_cutlass.apply()}
told["before"] = importlib.util.find_spec("cutlass") is not None
name = "vllm.model_executor.layers.fused_moe.router.bf16x3_router_gemm_cutedsl"
told["kernel"] = importlib.import_module(name).kernel.__name__
print(json.dumps(told))
"""
)


def told(folder: Path, files: dict[str, str], program: str) -> dict[str, object]:
    """What a program says with these modules on its path."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": f"{ENGINE_SIDE}:{folder}"},
        text=True, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_where_it_is_installed_only_its_compiler_is_answered(tmp_path: Path) -> None:
    assert told(tmp_path, INSTALLED, COMPILES) == {
        "stands": False, "again": False, "same": False,
    }  # fmt: skip


def test_without_the_answer_it_would_compile(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="would compile"):
        told(tmp_path, INSTALLED, COMPILES.replace("memacct_cutlass.apply()", "False"))


def test_what_a_b200_warms_up_needs_no_flash_attention(tmp_path: Path) -> None:
    assert told(tmp_path, VLLM, WARMS_UP) == {"stands": True, "before": False, "kernel": "kernel"}
