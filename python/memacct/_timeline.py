"""``checkpoint()``, ``span()`` and ``Timeline``: ordered accounting of a process's start.

What is resident when a timeline starts is its baseline; every entry after it is an increment,
so that baseline + increments is the resident memory that ``top`` shows, which is checked.
"""

from __future__ import annotations

import gc
import os
import threading
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import TYPE_CHECKING

from memacct._errors import MemacctError
from memacct._timeline_baseline import quiet_reading
from memacct._timeline_file import warn
from memacct._timeline_recording import Recording
from memacct._timeline_span import Span, notes_text, place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Literal

    from typing_extensions import Self

    from memacct._core import DeviceKey, HostTier
    from memacct._timeline_baseline import PartsKind
    from memacct._timeline_records import TimelineRecord
    from memacct._timeline_types import Baseline, IdentityCheck, Note, TimelineEntry

_NOT_STARTED = "this timeline has not been started"
_STOPPED = "this timeline has been stopped"
DIRECTORY_VARIABLE = "MEMACCT_TIMELINE_DIR"
_HOST_TIERS = ("counters", "breakdown", "rollup")


class Timeline:
    """Ordered memory accounting of this process, from its start on; ``str()`` is a table.

    Args:
        path: where the lines go as they are made: a file; or a folder (one that is there, or a
            path that ends in "/"), in which each process has a file of its own. None: they
            stay in memory.
        name: the process's role, such as "EngineCore", for those who read several.
        devices: as of ``snapshot``. Reading devices takes 0.1 to 1 ms an entry.
        host: as of ``snapshot``: "counters", "breakdown" or "rollup".
        breakdown: whether the baseline is broken down into its parts, by mappings; "once":
            without reading them again while the counter disagrees.

    Raises:
        ValueError: no such ``host``.

    A forked child that goes on with its parent's timeline gets one of its own at its first
    entry, with its own baseline; in a file of its own where ``path`` is a folder, else in the
    same one, where readers tell them apart. Threads may use a timeline at the same time; spans
    nest per thread (and asyncio task).

    Cost: see `checkpoint`. ``start`` reads the mappings (unless ``breakdown=False``): some
        milliseconds, and 5 to 10 ms per GiB that is resident (several times that before Linux
        6.7), up to three times if that takes less than 20 ms. A forked child does so only
        below 256 MiB; from there on its parts are anon, file and shmem, of its counters.
    Note: entries beyond 50,000 are in the file only, and counted (``unkept_count``); the last
        one, with the check, is kept. Lines survive the end of the process in any way, not that
        of the machine (no fsync).
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        name: str | None = None,
        devices: Literal["auto", "all"] | Sequence[DeviceKey] | None = None,
        host: HostTier = "breakdown",
        breakdown: bool | Literal["once"] = True,
    ) -> None:
        if host not in _HOST_TIERS:
            raise ValueError(f"host must be one of {', '.join(_HOST_TIERS)}, not {host!r}")
        self._path = None if path is None else _absolute(path)
        self._is_folder = self._path is not None and (
            str(path).endswith(os.sep) or os.path.isdir(self._path)  # noqa: PTH112 (never raises)
        )
        self._name = name
        self._devices = devices
        self._host: HostTier = host
        self._breakdown = breakdown
        self._recording: Recording | None = None
        self._has_ended = False
        self._is_implicit = False
        self._missed_count = 0
        self._has_warned = False

    def start(self) -> Self:
        """Reads the baseline; `memacct.checkpoint` goes to this timeline from now on.

        Raises:
            ValueError: it was started before.
            SourceError, DriverError: the baseline could not be read.
        """
        with _locks[0]:
            if self._recording is not None:
                raise ValueError("a timeline can be started once; make another")
            self._recording = self._record(None)
            _started.append(self)
        return self

    def _start_implicitly(self) -> None:
        self._is_implicit = True
        self.start()
        self._missed_count, _unstarted.count = _unstarted.count, 0

    def stop(self) -> IdentityCheck | None:
        """Adds a last entry with the identity check, closes the file and returns the check.

        Returns:
            None if memory could not be read. A second call returns the same.

        Raises:
            ValueError: it was not started.
        """
        if self._recording is None:
            raise ValueError(_NOT_STARTED)
        with _locks[0]:
            has_ended, self._has_ended = self._has_ended, True
            if self in _started:
                _started.remove(self)
        try:
            recording = self._own()
        except (MemacctError, OSError) as error:  # of a forked child's own baseline
            self._miss(error)
            return None
        if not has_ended:
            recording.end()
        return self.record().identity()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A child that was forked inside the block, and comes to its end, has nothing to end.
        if self._recording is not None and self._recording.pid == os.getpid():
            self.stop()

    def checkpoint(
        self,
        name: str,
        *,
        collect_garbage: bool = False,
        notes: Mapping[str, Note] | None = None,
    ) -> None:
        """Adds an entry to this timeline; see `memacct.checkpoint`.

        Raises:
            ValueError: before its start or after its stop.
            TypeError: a note is neither a number nor text.
        """
        if self._has_ended:
            raise ValueError(_STOPPED)
        garbage = f',"garbage_count":{gc.collect()}' if collect_garbage else ""
        self._add("checkpoint", quoted(name), notes_text(notes) + garbage)

    def check(self, name: str, *, notes: Mapping[str, Note] | None = None) -> None:
        """Adds a checkpoint by which readers can tell whether the sum holds so far; goes on.

        Raises:
            ValueError: before its start or after its stop.
            TypeError: a note is neither a number nor text.
        """
        if self._has_ended:
            raise ValueError(_STOPPED)
        try:
            recording = self._own()
        except (MemacctError, OSError) as error:  # of a forked child's own baseline
            self._miss(error)
            return
        where = place(recording)
        recording.check("checkpoint", quoted(name), place=where, more=notes_text(notes))

    def rename(self, name: str) -> None:
        """Gives the role that a forked child's own part of this timeline will have."""
        self._name = name

    def read_devices(self, devices: Literal["auto", "all"] | Sequence[DeviceKey] | None) -> None:
        """Changes which devices are read from the next entry on (None: none).

        So that a process's device is read once it has a context there. Devices that appear
        later have no change to tell from before.
        """
        self._devices = devices
        if self._recording is not None:
            self._recording.read_devices(devices)

    def span(self, name: str, *, collect_garbage: bool = False) -> Span:
        """Returns a context manager that adds an entry at its begin and one at its end.

        Raises:
            ValueError: entering: before the timeline's start or after its stop.
        """
        return Span(name, self._begin, self._end, collect_garbage=collect_garbage)

    def record(self) -> TimelineRecord:
        """Returns what has been recorded, as plain values.

        Raises:
            ValueError: before its start.
        """
        from dataclasses import replace

        from memacct._timeline_read import parse_timelines

        recording = self._own()
        unkept_count = recording.unkept_count
        record = parse_timelines(list(recording.lines), "a timeline in memory")[0][0]
        if unkept_count == 0:
            return record
        lost_count = max(record.lost_count - unkept_count, 0)
        return replace(record, lost_count=lost_count, unkept_count=unkept_count)

    @property
    def baseline(self) -> Baseline | None:
        """What was resident at the start, by parts; None if they are not known."""
        return self.record().baseline

    @property
    def entries(self) -> tuple[TimelineEntry, ...]:
        """The entries up to now, by time; the first one is the baseline."""
        return self.record().entries

    @property
    def path(self) -> Path | None:
        """The file that this process writes; None if it writes none."""
        file = self._own().file
        return None if file is None or not file.is_open else file.path

    @property
    def lost_count(self) -> int:
        """How many entries could be read but not written to the file."""
        file = self._own().file
        return 0 if file is None else file.lost_count

    @property
    def missed_count(self) -> int:
        """How many entries there are not because memory could not be read."""
        recording = self._recording
        return self._missed_count + (0 if recording is None else recording.missed_count)

    def identity(self) -> IdentityCheck:
        """Compares baseline + increments with the resident memory of now.

        What came after the last entry is in the increments, and told separately. After
        ``stop``: the check that it made.

        Raises:
            ValueError: before its start.
            SourceError: memory could not be read.
        """
        return self._check(self.record())

    def __str__(self) -> str:
        record = self.record()
        text = record.text(self._check(record))
        if self.lost_count:
            text += f"\n{self.lost_count} entries could not be written to the file"
        if self.missed_count:
            text += f"\n{self.missed_count} entries could not be read"
        return text

    def _check(self, record: TimelineRecord) -> IdentityCheck:
        made = record.identity()
        if made is not None:
            return made
        reading, now_bytes = quiet_reading(self._host)
        return record.check_against(reading.host, now_bytes)

    def _own(self) -> Recording:
        """This process's recording."""
        recording = self._recording
        if recording is None:
            raise ValueError(_NOT_STARTED)
        return recording if recording.pid == os.getpid() else self._go_on(recording)

    def _go_on(self, inherited: Recording) -> Recording:
        """Begins this process's own recording, after a fork."""
        with _locks[0]:
            now = self._recording
            if now is None or now is inherited:  # else another thread was faster
                if inherited.file is not None:
                    inherited.file.close()
                now = self._record(inherited.id)
                now.missed_count += inherited.missed_count  # since the fork
                self._recording = now
            return now

    def _record(self, parent_id: str | None) -> Recording:
        parts_kind: PartsKind = "mappings" if self._breakdown else "none"
        if self._breakdown == "once":
            parts_kind = "once"
        if self._breakdown and (self._is_implicit or parent_id is not None):
            parts_kind = "small"  # nobody asked for a walk, here and now
        return Recording(
            self._path,
            is_folder=self._is_folder,
            name=self._name,
            host=self._host,
            devices=self._devices,
            parts_kind=parts_kind,
            parent_id=parent_id,
        )

    def _add(self, kind: str, quoted_name: str, more: str) -> tuple[Recording | None, int]:
        recording = self._recording
        if recording is None:
            raise ValueError(_NOT_STARTED)
        reading = recording.read()
        if reading is None:
            return None, -1
        if reading.pid != recording.pid:
            try:
                recording = self._go_on(recording)
            except (MemacctError, OSError) as error:
                self._miss(error)  # the next entry tries again
                return None, -1
            reading = recording.read() or reading
        index = recording.add(reading, kind, quoted_name, place=place(recording), more=more)
        return recording, index

    def _miss(self, error: Exception) -> None:
        self._missed_count += 1
        if not self._has_warned:
            self._has_warned = True  # before: a handler may make an entry of its own
            self._has_warned = warn("the timeline could not go on after a fork: %s", error)

    def _forget_misses(self) -> None:
        """Of a forked child: what its parent missed is told by its parent."""
        self._missed_count = 0
        if self._recording is not None:
            self._recording.missed_count = 0

    def _begin(self, span: Span, quoted_name: str, more: str) -> None:
        if self._has_ended:
            raise ValueError(_STOPPED)
        span.recording, span.index = self._add("span_begin", quoted_name, more)
        span.depth = place(span.recording)[0]

    def _end(self, span: Span, quoted_name: str, more: str) -> None:
        # A span that its timeline, or its process, did not outlive has no end.
        recording = self._recording
        if recording is None or span.recording is not recording or self._has_ended:
            return
        if recording.pid != os.getpid():
            return
        reading = recording.read()
        if reading is not None:
            where = (span.depth, span.index)
            recording.add(reading, "span_end", quoted_name, place=where, more=more)


def _absolute(path: str | os.PathLike[str]) -> Path:
    # Absolute, since a child may have another working directory.
    try:
        return Path(path).absolute()
    except OSError:  # the working directory is gone; opening the file will tell
        return Path(path)


# Started and not stopped; the last one is the process's current timeline.
_started: list[Timeline] = []
# Of starts, stops and of going on after a fork. In a list, to be replaced in a forked child,
# where another thread's lock would stay locked for ever.
_locks = [threading.RLock()]


def _begin_child() -> None:
    _locks[0] = threading.RLock()
    for timeline in _started:
        timeline._forget_misses()  # noqa: SLF001 (ours)


os.register_at_fork(after_in_child=_begin_child)


def _current() -> Timeline:
    """The timeline that was started last and has not been stopped; else one of its own."""
    try:
        return _started[-1]
    except IndexError:
        pass
    with _locks[0]:
        if not _started:
            folder = os.environ.get(DIRECTORY_VARIABLE)
            timeline = Timeline(f"{folder}/" if folder else None)
            timeline._start_implicitly()  # noqa: SLF001 (ours)
        return _started[-1]


class _Unstarted:
    """Entries that there was no timeline for, since none could be started."""

    count = 0
    has_warned = False


_unstarted = _Unstarted()


def _current_if_any() -> Timeline | None:
    """As ``_current``; None, counted and logged once, if none can be started now."""
    try:
        return _current()
    except (MemacctError, OSError) as error:
        _unstarted.count += 1
        if not _unstarted.has_warned:
            _unstarted.has_warned = True  # before: a handler may make an entry of its own
            _unstarted.has_warned = warn("no timeline could be started: %s", error)
        return None


def _nothing(span: Span, quoted_name: str, more: str) -> None:
    """The begin and the end of a span that there is no timeline for."""


def checkpoint(name: str, *, collect_garbage: bool = False) -> None:
    """Adds an entry to the process's current timeline: its memory, now, under a name.

    That is the timeline that was started last and has not been stopped. If there is none, one
    is started, which costs this first call some milliseconds and makes it the end of the
    baseline; its parts are anon, file and shmem where 256 MiB or more are resident, since reading
    mappings would take long (`Timeline` does so at any size). It is written to a file of the
    folder that MEMACCT_TIMELINE_DIR names, if it is set, and else kept in memory.

    Args:
        name: any text; names may repeat.
        collect_garbage: whether to run a full garbage collection before, which takes 10 to 100
            ms and changes what is measured: what is only garbage is then not counted.

    Source: ``/proc/self/status`` (with the default ``host``).
    Cost: about twice a ``snapshot()``: one system call, and one more if there is a file.
    Note: a failure to start, to read or to write is logged once and counted, not raised; the
        next call tries again.
    """
    timeline = _current_if_any()
    if timeline is not None:
        timeline.checkpoint(name, collect_garbage=collect_garbage)


def span(name: str, *, collect_garbage: bool = False) -> Span:
    """Returns a context manager: an entry at its begin, and one at its end with the difference.

    Args: as of `checkpoint`; garbage is collected, if asked for, before both entries.
    """
    timeline = _current_if_any()
    if timeline is None:
        return Span(name, _nothing, _nothing, collect_garbage=collect_garbage)
    return timeline.span(name, collect_garbage=collect_garbage)


def current_timeline() -> Timeline:
    """Returns the process's current timeline; starts one if there is none, as `checkpoint`.

    Raises:
        SourceError: there was none, and the baseline could not be read.
    """
    return _current()
