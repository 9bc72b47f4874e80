"""The pytest plugin: ``@pytest.mark.memory(max_rss_growth="50MiB")`` and ``--memory-top N``.

Every pytest run beside an installed memacct loads this module: it imports nothing and looks at
nothing until a test has the marker or the option is given, and it does with any old pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARKER = (
    "memory(max_rss_growth=None, max_rss_peak=None, max_device_growth=None, gc=False): fail the "
    'test if its call takes more than that; sizes in bytes or as "50MiB" (memacct)'
)
_WATCH = "_memacct_watch"
#: Of a report's user_properties, which also reach xdist's controller and the JUnit file.
PROPERTY = "memacct_growth_bytes"


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        import argparse

        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--memory-top``."""
    parser.getgroup("memacct", "memory of tests").addoption(
        "--memory-top",
        type=_count,
        default=0,
        metavar="N",
        help="show the N tests whose calls let memory grow most",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker, and the summary if it is asked for."""
    config.addinivalue_line("markers", _MARKER)
    if config.option.memory_top:
        from memacct.integrations.pytest._summary import Summary

        config.pluginmanager.register(Summary(config.option.memory_top), "memacct-summary")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Reads the marker, so that a wrong argument is an error before anything is set up."""
    marks = list(item.iter_markers("memory"))
    if not marks and not item.config.option.memory_top:
        return
    from memacct.integrations.pytest._watch import Watch, parse_limits

    try:
        # The closest marker last: its limits stand.
        limits = parse_limits((mark.args, mark.kwargs) for mark in reversed(marks))
    except (TypeError, ValueError) as error:
        pytest.fail(f"@pytest.mark.memory: {error}", pytrace=False)
    setattr(item, _WATCH, Watch(limits))


# Innermost, so that only the call is between; and the old kind of wrapper, which each pluggy knows.
@pytest.hookimpl(hookwrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Measures the call, without the setup of its fixtures."""
    watch = getattr(item, _WATCH, None)
    if watch is None:
        yield
        return
    watch.start()
    if watch.unknown is not None:
        watch.stop()
        pytest.skip(watch.unknown)
    outcome: Any = yield
    watch.stop()
    if item.config.option.memory_top:
        item.user_properties.append((PROPERTY, watch.growth()))
    failure = watch.failure()
    if failure is not None and outcome.excinfo is None:
        outcome.force_exception(pytest.fail.Exception(failure, pytrace=False))
