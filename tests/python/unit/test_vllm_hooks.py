from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from memacct.integrations.vllm._hooks import after_import, found, wrap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType


class Engine:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self, name: str, *, loud: bool = False) -> str:
        """Starts."""
        self.calls.append(name)
        return name.upper() if loud else name


def exclaim(original: Callable[..., str], *args: Any, **kwargs: Any) -> str:
    return original(*args, **kwargs) + "!"


def test_a_class_is_wrapped_for_all_its_instances_once() -> None:
    kind = type("Kind", (Engine,), {})
    assert wrap(kind, "start", exclaim)
    assert wrap(kind, "start", exclaim)
    assert kind().start("a", loud=True) == "A!"
    assert kind.start.__doc__ == "Starts."
    assert Engine().start("a") == "a"


def test_what_two_parts_put_around_a_name_nests_each_once() -> None:
    def ask(original: Callable[..., str], *args: Any, **kwargs: Any) -> str:
        return original(*args, **kwargs) + "?"

    kind = type("Kind", (Engine,), {})
    for around in (exclaim, ask, exclaim, ask):
        assert wrap(kind, "start", around)
    assert kind().start("a") == "a!?"


def test_what_was_looked_for_is_remembered() -> None:
    kind = type("Remembered", (Engine,), {})
    wrap(kind, "start", exclaim)
    wrap(kind(), "halt", exclaim)
    assert {name: found[name] for name in found if name.startswith("Remembered")} == {
        "Remembered.start": True,
        "Remembered.halt": False,
    }


def test_an_instance_is_wrapped_alone() -> None:
    one, other = Engine(), Engine()
    assert wrap(one, "start", exclaim)
    assert (one.start("a"), other.start("a")) == ("a!", "a")
    assert one.calls == ["a"]


def test_a_missing_name_is_told_and_nothing_is_set() -> None:
    engine = Engine()
    assert not wrap(engine, "halt", exclaim)
    assert not hasattr(engine, "halt")


def test_an_error_of_the_original_passes_through() -> None:
    def fail() -> None:
        raise RuntimeError("the engine's own")

    class Failing:
        run = staticmethod(fail)

    instance = Failing()
    wrap(instance, "run", lambda original: original())
    with pytest.raises(RuntimeError, match="the engine's own"):
        instance.run()


@pytest.fixture
def late_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"late_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_an_action_waits_for_the_import(late_module: str) -> None:
    seen: list[int] = []

    def note(module: ModuleType) -> None:
        seen.append(module.value)

    finders = list(sys.meta_path)
    after_import(late_module, note)
    after_import(late_module, note)
    assert seen == []
    importlib.import_module(late_module)
    assert seen == [1]
    assert sys.meta_path == finders
    assert sys.modules[late_module].__spec__ is not None


def test_every_action_on_a_module_is_carried_out_in_order(late_module: str) -> None:
    seen: list[str] = []
    finders = list(sys.meta_path)
    after_import(late_module, lambda module: seen.append(f"first {module.value}"))
    after_import(late_module, lambda module: seen.append(f"second {module.value}"))
    importlib.import_module(late_module)
    assert seen == ["first 1", "second 1"]
    assert sys.meta_path == finders


def test_a_module_that_is_there_is_acted_on_at_once() -> None:
    seen: list[ModuleType] = []
    after_import("json", seen.append)
    assert seen == [sys.modules["json"]]


def test_a_failing_import_fails_as_it_would_have(late_module: str, tmp_path: Path) -> None:
    (tmp_path / f"{late_module}.py").write_text("raise OSError('its own')\n")
    seen: list[ModuleType] = []
    after_import(late_module, seen.append)
    with pytest.raises(OSError, match="its own"):
        importlib.import_module(late_module)
    assert seen == []
    (tmp_path / f"{late_module}.py").write_text("value = 123\n")
    importlib.import_module(late_module)
    assert [module.value for module in seen] == [123]


def test_looking_for_a_module_before_its_import_keeps_the_hook(late_module: str) -> None:
    seen: list[ModuleType] = []
    finders = list(sys.meta_path)
    after_import(late_module, seen.append)
    assert importlib.util.find_spec(late_module) is not None
    assert importlib.util.find_spec(late_module) is not None
    assert seen == []
    assert importlib.import_module(late_module).value == 1
    assert seen == [sys.modules[late_module]]
    assert sys.meta_path == finders


def test_a_failing_action_is_logged_and_the_import_goes_on(
    late_module: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(module: ModuleType) -> None:
        raise AttributeError(f"{module.__name__} has no Worker")

    after_import(late_module, fail)
    assert importlib.import_module(late_module).value == 1
    after_import("json", fail)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert said == [
        f"memacct: {name} was not hooked, vLLM goes on" for name in (late_module, "json")
    ]
