"""What an engine consumed, what its neighbours did meanwhile, and what it may still take.

Pure arithmetic over readings: nothing here reads a file, a driver or a clock.
"""

from __future__ import annotations

from memacct.accounting.budget import (
    SHORTFALL_POLICIES,
    BudgetCandidate,
    BudgetTerms,
    EngineBudget,
    ShortfallPolicy,
    decide_budget,
)
from memacct.accounting.consumption import Consumption, Reading, consumed
from memacct.accounting.equation import (
    EngineTerms,
    EquationRow,
    device_equation,
    engine_equation,
)
from memacct.accounting.foreign import ForeignChange, foreign_changes

__all__ = [
    "SHORTFALL_POLICIES",
    "BudgetCandidate",
    "BudgetTerms",
    "Consumption",
    "EngineBudget",
    "EngineTerms",
    "EquationRow",
    "ForeignChange",
    "Reading",
    "ShortfallPolicy",
    "consumed",
    "decide_budget",
    "device_equation",
    "engine_equation",
    "foreign_changes",
]
