"""Whose it is that a model does not start: vLLM's, the machine's, or the simulated GPU's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .models_cases import Case

# By what the engine says; the first that matches. Nothing here decides what starts.
REASONS = (
    (
        r"does not dispatch through the Transformers",
        "vLLM: this version has no class of its own for the architecture",
    ),
    (
        # Mamba2's scan has a chunk a request; the profiling pass has one for every 128 tokens.
        r"Tried to allocate 4\.00 GiB",
        (
            "right: with the KV cache there, vLLM warms up by a prefill of 1,024 requests at once: "
            "4 GiB of states, twice; `--max-num-seqs 512` starts"
        ),
    ),
    (r"out of memory|No available memory|larger than the available", "right: it does not fit"),
    (r"greater than the derived max_model_len", "right: the model is not that long"),
)


def reason(case: Case, found: Mapping[str, Any]) -> str:  # noqa: ARG001 - a case may need its own
    """Why, for the table; "not looked into" if nobody has said."""
    words = f"{found.get('error') or ''} {found.get('refusal') or ''}"
    for pattern, why in REASONS:
        if re.search(pattern, words):
            return why
    return "not looked into"
