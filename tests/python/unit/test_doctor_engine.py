"""The hooks that the doctor looks for: really ours, and found where a source has them."""

from __future__ import annotations

from pathlib import Path

import pytest

import memacct
from memacct.doctor._engine import HOOKS, Engine, _hooks_in, engine_findings

INTEGRATION = Path(memacct.__file__).parent / "integrations" / "vllm"


def test_each_hook_is_one_that_the_plugin_wraps() -> None:
    source = "\n".join(file.read_text() for file in INTEGRATION.glob("*.py"))
    for hook in HOOKS:
        name = hook.path.rpartition(".")[2]
        assert f'"{name}"' in source, hook.path
        owner = hook.path.partition(".")[0]
        assert owner in source, hook.path


def package(folder: Path, *, without: str = "") -> Path:
    """A vLLM of nothing but the hooks' names."""
    by_file: dict[str, dict[str, list[str]]] = {}
    for hook in HOOKS:
        if hook.path != without:
            owner, _, name = hook.path.rpartition(".")
            by_file.setdefault(hook.files[0], {}).setdefault(owner, []).append(name)
    for file, owners in by_file.items():
        lines = []
        for owner, names in owners.items():
            if owner:
                lines += [f"class {owner}:", *(f"    def {name}(self): ..." for name in names)]
            else:
                lines += [f"from elsewhere import {name}" for name in names]
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("\n".join(lines))
    return folder


def level_of(engine: Engine, key: str) -> str:
    (found,) = [finding for finding in engine_findings(engine) if finding.key == key]
    return found.level


def engine(**given: object) -> Engine:
    return Engine(python="python", vllm="0.33.0", plugins=("memacct",), **given)  # type: ignore[arg-type]


def test_all_hooks_are_found_where_they_are(tmp_path: Path) -> None:
    hooks = _hooks_in(package(tmp_path))
    assert all(found for _, found in hooks)
    assert level_of(engine(hooks=hooks), "engine.hooks") == "ok"


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.path)
def test_one_that_is_missing_is_told_and_is_a_warning_where_it_is_needed(
    tmp_path: Path, hook: object
) -> None:
    assert isinstance(hook, tuple)
    hooks = _hooks_in(package(tmp_path, without=hook[0]))
    assert [each.path for each, found in hooks if not found] == [hook[0]]
    assert level_of(engine(hooks=hooks), "engine.hooks") == ("warning" if hook[2] else "ok")


def test_a_source_that_is_no_python_is_no_hook(tmp_path: Path) -> None:
    folder = package(tmp_path)
    for file in folder.rglob("*.py"):
        file.write_bytes(b"\0 not python (")
    assert not any(found for _, found in _hooks_in(folder))


@pytest.mark.parametrize(
    ("version", "level"), [("0.33.0", "ok"), ("0.33.1rc2+cu130", "ok"), ("0.34.0", "note"),
                           ("1.0", "note"), ("0.10.2", "warning")],
)  # fmt: skip
def test_a_version_that_was_not_tried_is_told(version: str, level: str) -> None:
    assert level_of(Engine(python="python", vllm=version), "engine.vllm") == level


def test_an_engine_without_the_plugin_is_told() -> None:
    assert level_of(Engine(python="python", vllm="0.33.0"), "engine.plugin") == "warning"
    cpu_only = engine(torch="2.14.0", torch_backend="CPU only")
    assert level_of(cpu_only, "engine.torch") == "note"
