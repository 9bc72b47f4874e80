"""Answers requests: from the cache, by reckoning from runs that are there, else by a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from memacct.dry_run.alike import is_alike
from memacct.dry_run.fingerprint import fingerprint
from memacct.dry_run.interpolate import interpolate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct.dry_run.cache import Cache
    from memacct.dry_run.fingerprint import Fingerprint
    from memacct.dry_run.request import Request
    from memacct.dry_run.result import DryRun

#: Answers a request; with True by an engine that is, or once was, started for it.
Ask = Callable[["Request", bool], "DryRun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How requests are answered.

    Attributes:
        run: starts an engine.
        cache: of runs; None: only what this object was asked before is known.
        costs: what a run of a request is told of libraries' costs; anything that JSON takes.
        finish: puts the ranges to exact numbers; what is kept has none, as costs may be known
            better tomorrow.
        kept: runs of this object.
        stop: set, it ends the engines that are running, in whatever thread; their askers get
            `concurrent.futures.CancelledError`.
    """

    run: Callable[[Request], DryRun]
    cache: Cache | None = None
    costs: Callable[[Request], object] = lambda _: None
    finish: Callable[[DryRun], DryRun] = lambda run: run
    kept: dict[Fingerprint, DryRun] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def __call__(self, request: Request, started: bool = False) -> DryRun:
        """The answer to a request.

        Args:
            request: what is asked.
            started: an answer that was reckoned will not do.
        """
        begin = time.monotonic()
        key = fingerprint(request, costs=self.costs(request))
        found = self._kept(key, request)
        if found is None and not started:
            found = interpolate(request, self._relatives(key))
        if found is not None:
            return self.finish(replace(found, took_s=time.monotonic() - begin))
        run = self.run(request)
        self.kept[key] = run
        if self.cache is not None:
            self.cache.put(key, run)
        return self.finish(run)

    def _kept(self, key: Fingerprint, request: Request) -> DryRun | None:
        if key in self.kept:
            return replace(self.kept[key], request=request, origin="cache")
        found = None if self.cache is None else self.cache.get(key, request)
        if found is not None:
            return found
        same = next((run for run in self._relatives(key) if is_alike(request, run)), None)
        return None if same is None else replace(same, request=request, origin="cache")

    def _relatives(self, key: Fingerprint) -> Iterator[DryRun]:
        # Of a copy: a comparison asks from two threads, and the other one may add to it.
        for other, run in reversed(list(self.kept.items())):
            if other.family == key.family:
                yield run
        if self.cache is not None:
            yield from self.cache.relatives(key)
