"""Has modules changed as soon as they are imported, and not before."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def after_import(package: str, change: Callable[[ModuleType], None]) -> None:
    """Calls `change` with each of the package's modules: those imported, the others later.

    Args:
        package: the module of that name, and all below it.
        change: is given a module that has been run; must have no harm done by a second call.
    """
    for name, module in list(sys.modules.items()):
        if name == package or name.startswith(package + "."):
            change(module)
    if not any(isinstance(one, _Finder) and one.package == package for one in sys.meta_path):
        sys.meta_path.insert(0, _Finder(package, change))


class _Finder:
    """Finds the modules where they are, and has each changed when it has been run."""

    def __init__(self, package: str, change: Callable[[ModuleType], None]) -> None:
        self.package, self._change = package, change
        self._busy = False

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        """As importlib's finders."""
        wanted = name == self.package or name.startswith(self.package + ".")
        if self._busy or not wanted:
            return None
        self._busy = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._busy = False
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                self._change(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
