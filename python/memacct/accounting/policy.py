"""What to do when an engine's budget no longer fits beside its neighbours."""

from __future__ import annotations

from typing import Literal

ShortfallPolicy = Literal["clamp", "wait", "error"]
SHORTFALL_POLICIES: tuple[ShortfallPolicy, ...] = ("clamp", "wait", "error")
