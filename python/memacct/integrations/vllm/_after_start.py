"""After the start: sleep, wake_up and new weights, beside neighbours that move.

Sleeping gives memory back, and vLLM asserts that the device then has more of it free. Waking
takes it again, and vLLM asks nobody whether it is still there.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from memacct._errors import BudgetError
from memacct._units import format_bytes
from memacct.integrations.torch._sleeping import sleeping_pools
from memacct.integrations.vllm._hooks import wrap
from memacct.integrations.vllm._own_time import own_time
from memacct.integrations.vllm._report_file import add_to_report
from memacct.integrations.vllm._sleeping import addresses, sleeping_bytes
from memacct.integrations.vllm._startup_points import AFTER_START_METHODS
from memacct.integrations.vllm._witness import report_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memacct.integrations.vllm._gpu_session import GPUSession

logger = logging.getLogger("vllm.memacct")

ASSERTION = "Memory usage increased after sleeping"


class AfterStart:
    """Follows one worker's sleep and changes of weights."""

    def __init__(self, session: GPUSession) -> None:
        self.session = session
        self.events: list[dict[str, Any]] = []
        self._asleep: frozenset[int] = frozenset()

    def hook(self) -> None:
        """Wraps the worker's methods, as far as this vLLM has them."""
        worker = self.session.worker
        wrap(worker, "sleep", self._around_sleep)
        wrap(worker, "wake_up", self._around_wake_up)
        for name in AFTER_START_METHODS:
            wrap(worker, name, _told(self, name))

    # ---------------------------------------------------------------- sleeping

    def _around_sleep(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        before = self._own_bytes()
        result = None
        try:
            result = original(*args, **kwargs)
        except AssertionError as error:
            # The last thing that sleep() does: all that it was to do is done.
            if ASSERTION not in str(error) or self._has_grown(before):
                raise
            logger.warning(
                "memacct: while the engine went to sleep others took more memory than it gave "
                "back; its own did not grow, so vLLM's assertion is left out."
            )
        self._asleep = addresses(self.session.device_ordinal)
        self.session.guard(self._tell_sleep, before)
        return result

    def _own_bytes(self) -> tuple[int | None, int]:
        """What this engine holds, by the driver (None: not told) and by its allocators."""
        with own_time:
            ordinal = self.session.device_ordinal
            reserved = int(torch.cuda.memory_reserved(ordinal))
            pools = sleeping_pools(ordinal)
            asleep = 0 if pools is None else pools.unmapped_bytes or 0
            device = self.session.read(self.session.raw_free()).device
            own = None if device is None else device.own_bytes
            return own, reserved - asleep

    def _has_grown(self, before: tuple[int | None, int]) -> bool:
        now = self._own_bytes()
        if before[0] is not None and now[0] is not None:
            return now[0] > before[0]
        # All that sleep() moves is torch's or the sleeping allocator's.
        return now[1] > before[1]

    def _tell_sleep(self, before: tuple[int | None, int]) -> None:
        view = self.session.shortfall.view()
        own, _ = self._own_bytes()
        freed = None if before[0] is None or own is None else before[0] - own
        table, rows = view.table(view.holding(examined=False))
        told = "" if freed is None else f", {format_bytes(freed)} less than before"
        held = "an unknown amount" if own is None else format_bytes(own)
        logger.info(
            "memacct: asleep, this process still holds %s%s:\n%s",
            held,
            told,
            table,
        )
        self._record("sleep", own_bytes=own, freed_bytes=freed, rows=[asdict(row) for row in rows])

    # ---------------------------------------------------------------- waking

    def _around_wake_up(
        self, original: Callable[..., Any], tags: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        self.session.guard(self._settle_waking, tags)
        result = original(tags, *args, **kwargs)
        self._asleep -= addresses(self.session.device_ordinal, tags)
        return result

    def _settle_waking(self, tags: Any) -> None:
        """Applies ``on_shortfall`` if less is free than what waking takes.

        Raises:
            BudgetError: the policy is ``error``.
        """
        wanted = sleeping_bytes(self.session.device_ordinal, tags, self._asleep)
        free = self.session.raw_free()
        if wanted > free and self.session.config.on_shortfall == "wait":
            self._wait(free, wanted)
            free = self.session.raw_free()
        self._record("wake_up", wanted_bytes=wanted, free_bytes=free)
        if wanted <= free:
            return
        story = f"waking takes {format_bytes(wanted)}, and {_missing(free, wanted)}"
        if self.session.config.on_shortfall == "error":
            self.session.shortfall.explain_waking(story, wanted - free, level=logging.ERROR)
            raise BudgetError(f"{story}; on_shortfall is 'error'")
        self.session.shortfall.explain_waking(story, wanted - free, level=logging.WARNING)

    def _wait(self, free: int, wanted: int) -> None:
        wait_s = self.session.config.wait_s
        logger.warning(
            "memacct: waking takes %s, and %s; waiting for up to %g s. %s",
            format_bytes(wanted),
            _missing(free, wanted),
            wait_s,
            self.session.shortfall.view().holders_text(),
        )
        from memacct.accounting.waiting import wait_until_free

        waited = wait_until_free(self.session.raw_free, wanted, wait_s=wait_s, pause=own_time.pause)
        logger.warning(
            "memacct: waited %.1f s, and %s are free.",
            waited.waited_s,
            format_bytes(waited.free_bytes),
        )

    def _record(self, event: str, **values: Any) -> None:
        self.events.append({"event": event, **values})
        folder = self.session.config.report_dir
        add_to_report(folder, report_name(self.session.worker), {"after_start": self.events})

    # ---------------------------------------------------------------- changes

    @contextlib.contextmanager
    def telling(self, name: str) -> Iterator[None]:
        """A debug line of what the body changed."""
        if not logger.isEnabledFor(logging.DEBUG):
            yield
            return
        before = self.session.guard(self._reading)
        yield
        self.session.guard(self._tell_change, name, before)

    def _reading(self) -> tuple[int | None, int]:
        free = self.session.raw_free()
        device = self.session.read(free).device
        return None if device is None else device.own_bytes, free

    def _tell_change(self, name: str, before: tuple[int | None, int] | None) -> None:
        if before is None:
            return
        now = self._reading()
        own = None if before[0] is None or now[0] is None else now[0] - before[0]
        logger.debug(
            "memacct: %s changed this process by %s, and the device's free memory by %s",
            name,
            "an unknown amount" if own is None else format_bytes(own),
            format_bytes(now[1] - before[1]),
        )


def _missing(free: int, wanted: int) -> str:
    return f"{format_bytes(free)} are free: {format_bytes(wanted - free)} are missing"


def _told(after: AfterStart, name: str) -> Callable[..., Any]:
    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with after.telling(name):
            return original(*args, **kwargs)

    return around
