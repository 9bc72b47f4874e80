"""Has speculative decoding go on: of each request's drafts none is accepted, one token is sampled.

How many tokens were accepted is counted by a kernel of vLLM's own (Triton), which does nothing on
the simulated GPU: no request would ever get a token, and none would end. Of a start nothing depends
on it. Where a version of vLLM has no such function, nothing is done.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from memacct_quick import AfterImport

if TYPE_CHECKING:
    from collections.abc import Callable


def _around(change: Callable[[Any], None]) -> Callable[[Any], None]:
    """A patch of a module whose `rejection_sample` has its result changed in place."""

    def patch(module: Any) -> None:
        original = getattr(module, "rejection_sample", None)
        if original is None:
            return

        @functools.wraps(original)
        def rejection_sample(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            change(result)
            return result

        module.rejection_sample = rejection_sample

    return patch


def _first_of_counted(result: Any) -> None:
    """The newer runner's: tokens, and how many of them are valid."""
    sampled, counts = result[:2]
    sampled[:, :1].fill_(0)
    counts.fill_(1)


def _first_of_marked(result: Any) -> None:
    """The older runner's: tokens, -1 where there is none."""
    result[:, :1].fill_(0)


PATCHES = {
    "vllm.v1.worker.gpu.spec_decode.rejection_sampler_utils": _around(_first_of_counted),
    "vllm.v1.sample.rejection_sampler": _around(_first_of_marked),
}


def apply() -> None:
    """Patches what this process has imported, or imports later."""
    for name in PATCHES.keys() & sys.modules.keys():
        PATCHES[name](sys.modules[name])
    sys.meta_path.insert(0, AfterImport(PATCHES))
