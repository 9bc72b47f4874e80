"""The whole start of an engine as spans: one timeline in each of its processes.

On by ``"timeline": true`` in ``additional_config['memacct']`` or by ``MEMACCT_TIMELINE=1``,
whatever the profiler. The points are in `_startup_points`, what is done at them in
`_startup_hooks`; here is what a process keeps, and its begin and end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from memacct._timeline import DIRECTORY_VARIABLE, Timeline, _started
from memacct.integrations.vllm._own_time import own_time
from memacct.integrations.vllm._startup_step import Step, guarded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.integrations.vllm._config import PluginConfig

logger = logging.getLogger("vllm.memacct")


class Startup:
    """What one process keeps of its start.

    Attributes:
        timeline: where its spans go.
        folder: of all the engine's processes.
        name: the process's role.
        pid: of the process that this was made for; a forked child goes on with it.
        has_tensors: whether each tensor of the weights is a point.
        present: for each point whose module was loaded, whether this vLLM has it.
        is_resting: whether an engine that has no timeline was configured after the last that has.
        opened: a span that was begun by ``register``, inside the function that it is around.
    """

    def __init__(self, name: str, config: PluginConfig) -> None:
        self.name = name
        self.pid = os.getpid()
        self.folder = _folder(config)
        self.has_tensors = config.timeline == "tensors"
        self.present: dict[str, bool] = {}
        self.is_resting = False
        self.opened: tuple[str, Step] | None = None
        self.often_count = self.often_ns = self.often_rss_bytes = 0
        self._has_told = False
        self.timeline = _own_timeline(self.folder, name)

    def step(self, name: str) -> Step:
        """Returns a span, to be entered."""
        return Step(self.timeline, name)

    def go_on_as(self, name: str) -> None:
        """In a forked child: it is a process of its own, with a part of its own."""
        if self.pid == os.getpid():
            return
        self.pid, self.name = os.getpid(), name
        self.opened, self._has_told = None, False
        guarded(lambda: self.timeline.rename(name))

    def open(self, name: str) -> None:
        """Begins the span around the function that is running already."""
        self.opened = (name, self.step(name).__enter__())

    def close(self, name: str) -> bool:
        """Ends that span, if it has this name; returns whether it did."""
        if self.opened is None or self.opened[0] != name or self.pid != os.getpid():
            return False
        step, self.opened = self.opened[1], None
        step.__exit__(None, None, None)
        return True

    def tensor_point(self, name: str, notes: dict[str, int]) -> None:
        """Adds a point for a tensor of the weights that has been used."""
        self.timeline.checkpoint(name, notes=notes)

    def take_often(self) -> dict[str, int]:
        """Returns the sums of what was done so often that it has no entries, and begins anew."""
        count, self.often_count = self.often_count, 0
        spent_ns, self.often_ns = self.often_ns, 0
        rss_bytes, self.often_rss_bytes = self.often_rss_bytes, 0
        if count == 0:
            return {}
        return {
            "device_loading_context_count": count,
            "device_loading_context_ns": spent_ns,
            "device_loading_context_rss_bytes": rss_bytes,
        }

    def complete(self, role: str) -> None:
        """Checks the sum, tells what the start cost, and what was looked at; at a part's end."""

        def check() -> None:
            spent = own_time.spent()
            notes = {"own_wall_ns": spent.wall_ns, "own_cpu_ns": spent.cpu_ns}
            self.timeline.check(f"{role} started", notes=notes)
            if self.name.startswith(role) and not self._has_told:
                self._has_told = True
                logger.info("memacct: %s", self._account())

        guarded(check)

    def _account(self) -> str:
        found = [key for key, is_there in self.present.items() if is_there]
        missing = [key for key, is_there in self.present.items() if not is_there]
        text = f"the start of {self.name} is in {self.timeline.path or 'memory'}: "
        text += f"{len(found)} hooks found"
        return text + (f"; not in this vLLM: {', '.join(sorted(missing))}" if missing else "")


# Of this process, or inherited from the one that it was forked from.
_current: list[Startup] = []


def current() -> Startup | None:
    """Returns what this process keeps; None if no timeline is asked for."""
    startup = _current[-1] if _current else None
    return None if startup is None or startup.is_resting else startup


def rest() -> None:
    """The engine that is configured now has no timeline: what is hooked does nothing for it."""
    for startup in _current:
        startup.is_resting = True


def begin(name: str, config: PluginConfig) -> Startup | None:
    """Begins this process's part, if it is asked for and not begun; hooks vLLM's functions.

    Returns:
        It; None if none is asked for, or none could be begun (which is logged).
    """
    if not config.timeline:
        return None
    if not _current:
        with own_time:
            try:
                from memacct.integrations.vllm._startup_hooks import install

                startup = Startup(name, config)
                _current.append(startup)
                install()
            except Exception:
                if config.strict:
                    raise
                logger.exception("memacct: no start-up timeline, vLLM goes on")
                return None
            logger.info("memacct: the timeline of the start is written to %s", startup.folder)
    _current[-1].is_resting = False
    return _current[-1]


def _folder(config: PluginConfig) -> str:
    """Where all processes of this engine write: as told, else a new folder for this one."""
    told = os.environ.get(DIRECTORY_VARIABLE) or config.report_dir
    if told:
        return str(Path(told).absolute())
    return str(Path(tempfile.gettempdir()) / f"memacct-timeline-{os.getpid()}")


def _own_timeline(folder: str, name: str) -> Timeline:
    """A timeline in ``folder``; the one that the user's own checkpoints began there, if any."""
    for known in reversed(_started):
        path = known.path
        if path is not None and str(path.parent) == folder:
            known.rename(name)
            return known
    return Timeline(f"{folder}/", name=name, breakdown="once").start()


@contextlib.contextmanager
def handed_down(startup: Startup) -> Iterator[None]:
    """Processes that are started meanwhile write to the same folder; others later do not."""
    before = os.environ.get(DIRECTORY_VARIABLE)
    os.environ[DIRECTORY_VARIABLE] = startup.folder
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(DIRECTORY_VARIABLE, None)
        else:
            os.environ[DIRECTORY_VARIABLE] = before
