"""When to sample next: at a rate, and within a budget of time."""

from __future__ import annotations

_SAVED_NS = 20_000_000  # what the account may hold: the first reading loads libraries


class Pace:
    """Deadlines at a rate, some of them left out to keep to the budget. Pure.

    What is read costs time on the machine that is looked at: a search for a tree's processes
    walks through all of ``/proc``. Each sample is paid for from an account that earns
    `budget_ratio` of the time that passes; while it is in debt, deadlines are left out.

    Args:
        hz: samples a second.
        budget_ratio: the part of the time, at most, that samples may take.
        start_ns: when the account is opened.

    Attributes:
        skipped_count: deadlines that were left out to keep to the budget.
        missed_count: that passed unserved: the machine was busy.
    """

    def __init__(self, hz: float, budget_ratio: float, start_ns: int) -> None:
        self.period_ns = round(1e9 / hz)
        self.skipped_count = 0
        self.missed_count = 0
        self._ratio = budget_ratio
        self._saved_ns = float(_SAVED_NS)
        self._paid_ns = start_ns
        self._due_ns = start_ns

    def next_due(self, now_ns: int, cost_ns: int) -> int:
        """Returns when to sample next, after a sample that ended now and cost so much."""
        earned_ns = (now_ns - self._paid_ns) * self._ratio
        self._saved_ns = min(self._saved_ns + earned_ns, _SAVED_NS) - cost_ns
        self._paid_ns = now_ns
        solvent_ns = now_ns
        if self._saved_ns < 0 and self._ratio < 1:
            solvent_ns += round(-self._saved_ns / self._ratio)
        self._due_ns += self.period_ns
        while self._due_ns < now_ns:
            self._due_ns += self.period_ns
            self.missed_count += 1
        while self._due_ns < solvent_ns:
            self._due_ns += self.period_ns
            self.skipped_count += 1
        return self._due_ns
