"""Wrapping functions of modules that may not be imported yet, once each."""

from __future__ import annotations

import functools
import importlib.abc
import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

logger = logging.getLogger("vllm.memacct")

_MARK = "__memacct_wraps__"

#: What was looked for in this process, by "Owner.name", and whether it was there.
found: dict[str, bool] = {}


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> bool:
    """Replaces ``owner.name`` by ``around(original, *args, **kwargs)``; once for each ``around``.

    ``owner`` is a class or an instance. On an instance the bound method is wrapped. What
    different functions put around the same name nests, the later outside.

    Returns:
        Whether the name was there. Its absence is normal between vLLM's versions.
    """
    original = getattr(owner, name, None)
    found[f"{_name_of(owner)}.{name}"] = original is not None
    if original is None:
        return False
    marks: tuple[str, ...] = getattr(original, _MARK, ())
    mark = f"{around.__module__}.{getattr(around, '__qualname__', repr(around))}"
    if mark in marks:
        return True

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(wrapper, _MARK, (*marks, mark))
    setattr(owner, name, wrapper)
    return True


def _name_of(owner: Any) -> str:
    named = owner if hasattr(owner, "__name__") else type(owner)
    return str(named.__name__)


def after_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Calls ``action(module)`` once module ``name`` is there: now, or after its import.

    Importing it for the purpose would bring a worker's modules into processes that never
    need them, and change the order of the host's own imports. An error of the action is
    logged: the host's import is not ours to end.
    """
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        _act(action, module)
        return
    _after_import.add(name, action)


def _act(action: Callable[[ModuleType], None], module: ModuleType) -> None:
    try:
        action(module)
    except Exception:
        logger.exception("memacct: %s was not hooked, vLLM goes on", module.__name__)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the awaited modules as everybody else does, and acts after their bodies have run.

    A module is awaited until then: it may be looked for (``importlib.util.find_spec``) long
    before it is imported, and an import that failed may be tried again. One finder for all of
    them, since each one is asked at every import of the process.
    """

    def __init__(self) -> None:
        self._actions: dict[str, list[Callable[[ModuleType], None]]] = {}

    def add(self, name: str, action: Callable[[ModuleType], None]) -> None:
        """Awaits ``name`` for ``action``, which comes after those that are there; once."""
        actions = self._actions.setdefault(name, [])
        if action not in actions:
            actions.append(action)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._actions:
            return None
        spec = self._ask_the_others(fullname, path, target)
        if spec is not None and spec.loader is not None:
            # A loader that takes no attributes: the host has its module, we have no hook.
            try:
                self._act_after(fullname, spec.loader)
            except Exception:
                logger.exception("memacct: %s was not hooked, vLLM goes on", fullname)
        return spec

    def _ask_the_others(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        # One by one: importlib.util.find_spec would ask this finder again.
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                return spec
        return None

    def _act_after(self, name: str, loader: Any) -> None:
        execute = loader.exec_module

        @functools.wraps(execute)
        def exec_module(module: ModuleType) -> None:
            execute(module)
            # Once, through however many searches the loader came.
            actions = self._actions.pop(name, [])
            if not self._actions and self in sys.meta_path:
                sys.meta_path.remove(self)
            for action in actions:
                _act(action, module)

        loader.exec_module = exec_module


_after_import = _AfterImport()
