"""``--memory-top N``: the tests whose calls let memory grow most, wherever they ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memacct.integrations.pytest import PROPERTY
from memacct.report.growth import top_text

if TYPE_CHECKING:
    import pytest


class Summary:
    """Collects what reports tell; with xdist the controller's, of all workers."""

    def __init__(self, most_count: int) -> None:
        self._most_count = most_count
        self._grown: list[tuple[str, dict[str, int]]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keeps what one test let grow."""
        if report.when == "call":
            self._grown += [(report.nodeid, grown) for name, grown in _told(report)]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Writes the table."""
        terminalreporter.section(f"top {self._most_count} by growth of memory (MiB)")
        terminalreporter.write_line(top_text(self._grown, self._most_count))


def _told(report: pytest.TestReport) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in report.user_properties if name == PROPERTY]
