"""``python -m memacct``."""

from __future__ import annotations

from memacct.cli import main

main()
