"""FlashInfer's JIT answered: in a package laid out as FlashInfer's, which would compile."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from dry_runs import a_machine, a_request

from memacct.dry_run.engine_process import ENGINE_SIDE
from memacct.dry_run.flashinfer import without_flashinfer
from memacct.dry_run.result import DryRun

if TYPE_CHECKING:
    from pathlib import Path

# As in FlashInfer 0.2 to 0.7: specifications made by gen_*, named elsewhere, built on first use.
PACKAGE = {
    "__init__.py": "from .jit import gen_sampling_module\nfrom .sampling import sample\n",
    "sampling.py": (
        "from .jit import gen_sampling_module\n"
        "def sample():\n"
        "    module = gen_sampling_module().build_and_load()\n"
        "    return module.plan(1, 2), module.run(3), range(module.count())\n"
        "def experts():\n"
        "    spec = gen_sampling_module()\n"
        "    for path in spec.get_library_paths():\n        raise OSError('would open')\n"
        "    return spec.build_and_load().init(1).run_moe(2)\n"
    ),
    "jit/__init__.py": (
        "from .core import JitSpec\nfrom .cubin_loader import get_artifact\n"
        "from .sampling import gen_sampling_module\n"
    ),
    "jit/core.py": (
        "class JitSpec:\n    name = 'x'\n    def build_and_load(self):\n"
        "        raise RuntimeError('would run nvcc')\n"
    ),
    "jit/cubin_loader.py": "def get_artifact(name):\n    raise OSError('would download')\n",
    "jit/sampling.py": (
        "from .core import JitSpec\ndef gen_sampling_module():\n    return JitSpec()\n"
    ),
}
SOURCE = """
Array<Tensor> trtllm_bf16_moe(
    int64_t routing_input_mode, Optional<TensorView> const& routing_logits,
    Array<int64_t> moe_tactic, bool is_da_body_preparation) {
  return {};
"""
PARAMETERS = ["routing_input_mode", "routing_logits", "moe_tactic", "is_da_body_preparation"]
PROGRAM = """
import json, os, sys
import memacct_flashinfer
told = {"installed": memacct_flashinfer.apply(), "again": memacct_flashinfer.apply()}
told["imported"] = "flashinfer" in sys.modules
if told["installed"]:
    import flashinfer
    from flashinfer.jit import JitSpec, get_artifact
    plan, run, tactics = flashinfer.sample()
    told |= {"plan": plan[:2], "run": bool(run), "tactics": len(tactics)}
    told["artifact"] = get_artifact("x").decode()
    told["spec"] = type(JitSpec().build_and_load()).__name__
    told["notes before"] = memacct_flashinfer.notes()
    flashinfer.sampling.experts()
    told["notes"] = memacct_flashinfer.notes()
    from memacct_flashinfer_experts import default_tile, parameters
    told["parameters"] = parameters("trtllm_bf16_moe"), parameters("trtllm_other_moe")
    told["tiles"] = [default_tile((8, 16, 32), average) for average in (1, 8, 9, 20, 1000)]
print(json.dumps(told))
"""


def told(folder: Path, *, apply: str = PROGRAM) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-S", "-c", apply],
        env={"PYTHONPATH": f"{ENGINE_SIDE}:{folder}"},
        text=True, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in PACKAGE.items():
        path = tmp_path / "flashinfer" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    source = tmp_path / "flashinfer/data/csrc/trtllm_fused_moe_kernel_launcher.cu"
    source.parent.mkdir(parents=True)
    source.write_text(SOURCE)
    return tmp_path


def test_modules_are_there_at_once_and_do_nothing(package: Path) -> None:
    found = told(package)
    (note,) = found.pop("notes")
    assert note.startswith("FlashInfer's experts (run_moe)")
    assert "not counted" in note
    assert found == {
        "installed": True, "again": True, "imported": False,
        "plan": [0, 0], "run": False, "tactics": 0, "artifact": "", "spec": "Nothing",
        "notes before": [], "parameters": [PARAMETERS, []],
        # The one before the first that suffices.
        "tiles": [8, 8, 8, 16, 16],
    }  # fmt: skip


def test_where_it_is_not_installed_nothing_is_answered(tmp_path: Path) -> None:
    assert told(tmp_path) == {"installed": False, "again": False, "imported": False}


def test_a_dry_run_says_so_where_it_matters() -> None:
    def said(capability: tuple[int, int], **versions: str) -> tuple[str, ...]:
        request = a_request(machine=a_machine(compute_capability=capability))
        run = DryRun(request=request, verdict="starts", versions=versions, settings={}, ranks=())
        return without_flashinfer(run)

    assert "not counted: 394.00 MiB, and" in said((10, 0), vllm="0.33.0")[0]
    assert said((10, 0), **{"flashinfer-python": "0.7.2"}) == said((9, 0)) == ()
