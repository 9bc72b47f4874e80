"""Calls a function right after a module has run, before others take names out of it."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    Patch = Callable[[Any], None]

_asked_for: set[tuple[str, Patch]] = set()


def after_import(package: str, change: Patch) -> None:
    """Calls `change` with each of the package's modules: those imported now, the others then.

    Args:
        package: the module of that name, and all below it.
        change: is given a module that has been run. Asked for a second time, nothing is done.
    """
    if (package, change) in _asked_for:
        return
    _asked_for.add((package, change))

    def patch_of(name: str) -> Patch | None:
        return change if name == package or name.startswith(package + ".") else None

    for name, module in list(sys.modules.items()):
        if patch_of(name) is not None:
            change(module)
    sys.meta_path.insert(0, AfterImport(patch_of))


class AfterImport(MetaPathFinder):
    """Finds modules where the other finders do, those of editable installs included.

    To be put first into ``sys.meta_path``.

    Args:
        patch_of: what is called with the module of a name; None: the module is left alone.
    """

    def __init__(self, patch_of: Callable[[str], Patch | None]) -> None:
        self.patch_of = patch_of
        # By name: several threads may import at once, though never the same module.
        self._asked: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's usual spec, with a loader that patches; None for all other modules."""
        patch = None if fullname in self._asked else self.patch_of(fullname)
        if patch is None:
            return None
        self._asked.add(fullname)  # another one that patches it, too, asks here again
        try:
            spec = self._usual(fullname, path, target)
        finally:
            self._asked.discard(fullname)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_patch(module: ModuleType) -> None:
            run(module)
            patch(module)

        spec.loader.exec_module = run_and_patch  # type: ignore[method-assign]
        return spec

    def _usual(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        specs = (
            finder.find_spec(fullname, path, target)
            for finder in list(sys.meta_path)
            if finder is not self
        )
        return next((spec for spec in specs if spec is not None), None)
