"""torch.compile in a dry run: the same graph and code, nothing that only a later start uses.

See memacct_quick.
"""

from __future__ import annotations

import gc
from typing import Any

# Objects between collections while a model is traced: it makes very many that stay.
TRACING = (20_000, 20, 1000)
_tracing: list[Any] = []


def save_nothing(decorators: Any) -> None:
    """Leaves out that the compiled model is written to vLLM's cache."""
    original = getattr(decorators, "_support_torch_compile", None)
    if original is None:
        return

    def without_saving(cls: Any, *args: Any, **keywords: Any) -> Any:
        cls = original(cls, *args, **keywords)
        if hasattr(cls, "save_aot_compiled_function"):
            cls.save_aot_compiled_function = lambda _self: None
        return cls

    decorators._support_torch_compile = without_saving  # noqa: SLF001


def no_sources(package: Any) -> None:
    """Does not look up the traced functions' source, which is only saved with the above."""
    info = getattr(package, "SourceInfo", None)
    if info is not None and hasattr(info, "add_code"):
        info.add_code = lambda _self, _code: None


def no_guards(guards: Any) -> None:
    """Collects no guards for what vLLM compiles without: it drops them all in the end."""
    context = getattr(guards, "GuardsContext", None)
    if context is None or not hasattr(context, "skip_guard_install"):
        return
    original = context.__init__

    def init(self: Any, *args: Any, **keywords: Any) -> None:
        original(self, *args, **keywords)
        if _tracing:
            self.skip_install = True

    context.__init__ = init


def trace_without_guards(wrapper: Any) -> None:
    """Tells the above when vLLM traces a model."""
    cls = getattr(wrapper, "TorchCompileWithNoGuardsWrapper", None)
    original = getattr(cls, "aot_compile", None)
    if cls is None or original is None:
        return

    def aot_compile(self: Any, *args: Any, **keywords: Any) -> Any:
        if getattr(self, "evaluate_guards", True):
            return original(self, *args, **keywords)
        threshold = gc.get_threshold()
        gc.set_threshold(*TRACING)
        _tracing.append(self)
        try:
            return original(self, *args, **keywords)
        finally:
            _tracing.pop()
            gc.set_threshold(*threshold)

    cls.aot_compile = aot_compile
