"""torch.compile in a dry run: the same graph and code, nothing that only a later start uses.

See memacct_quick.
"""

from __future__ import annotations

from typing import Any


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
