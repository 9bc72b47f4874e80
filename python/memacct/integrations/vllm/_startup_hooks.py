"""What is done at each point of the start, once the module that it is in has been imported."""

from __future__ import annotations

import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any

from memacct._core import snapshot
from memacct.integrations.vllm._hooks import after_import, wrap
from memacct.integrations.vllm._startup import Startup, current, handed_down
from memacct.integrations.vllm._startup_notes import buffer_notes
from memacct.integrations.vllm._startup_points import (
    AFTER_START_METHODS,
    EXECUTOR_METHODS,
    LOADER_METHODS,
    POINTS,
    RUNNER_METHODS,
    WORKER_METHODS,
    Point,
)
from memacct.integrations.vllm._startup_stack import core_name, worker_name
from memacct.integrations.vllm._startup_step import guarded
from memacct.integrations.vllm._startup_weights import (
    SEQUENTIAL,
    Watched,
    WeightsWatch,
    listed_files,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import ModuleType


def install() -> None:
    """Hooks every point, now or when its module is imported. Safe to call again."""
    for module in dict.fromkeys(point.module for point in POINTS):
        after_import(module, _hook_module)


def _hook_module(module: ModuleType) -> None:
    startup = current()
    if startup is None:
        return
    for point in POINTS:
        if point.module == module.__name__:
            startup.present[point.key] = hook(module, point)


def hook(module: Any, point: Point) -> bool:
    """Wraps what ``point`` names in ``module``; returns whether it is there."""
    owner_name, _, name = point.path.rpartition(".")
    owner = getattr(module, owner_name, None) if owner_name else module
    if owner is None:
        return False
    if name.startswith("*"):
        found = [each for each in vars(owner) if each.endswith(name[1:])]
        return any([_wrap(owner, each, point) for each in found])  # noqa: C419 (all of them)
    return _wrap(owner, name, point)


def _wrap(owner: Any, name: str, point: Point) -> bool:
    around = functools.partial(_AROUND[point.role], point.name or name)
    return wrap(owner, name, _reordered(around))


def _reordered(around: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the process's own startup in front; calls the original alone where there is none."""

    def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        startup = current()
        if startup is None:
            return original(*args, **kwargs)
        return around(startup, original, *args, **kwargs)

    return call


def _span(
    name: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    with startup.step(name):
        return original(*args, **kwargs)


def _front(
    name: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    with startup.step(name):
        result = original(*args, **kwargs)
    startup.complete("main")
    return result


def _children(
    name: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    with startup.step(name), handed_down(startup):
        return original(*args, **kwargs)


def _core(
    name: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    # Not under spawn: there it runs already when plugins are loaded, and `register` opened it.
    config = kwargs.get("vllm_config", args[1] if len(args) > 1 else None)
    guarded(lambda: startup.go_on_as(core_name(config)))
    with startup.step(name):
        result = original(*args, **kwargs)
    startup.complete("EngineCore")
    return result


def _core_end(
    _: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    result = original(*args, **kwargs)
    if startup.close("EngineCore"):
        startup.complete("EngineCore")
    return result


def _core_ended(
    _: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    if startup.close("EngineCore"):
        startup.complete("EngineCore")
    return original(*args, **kwargs)


def _caches(
    name: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    guarded(lambda: _hook_class(startup, args[0].model_executor, EXECUTOR_METHODS))
    with startup.step(name):
        return original(*args, **kwargs)


def _worker_made(
    name: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    def name_child() -> None:
        own = kwargs.get("all_kwargs", args[1] if len(args) > 1 else ())[args[0].rpc_rank]
        startup.go_on_as(worker_name(own.get("rank"), own.get("vllm_config")))

    guarded(name_child)
    with startup.step(name):
        return original(*args, **kwargs)


def _worker(
    _: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    startup.close("init_worker")
    # Before memacct's profiler puts its own wrappers on this instance, around these.
    guarded(lambda: _hook_worker(startup, args[0].worker))
    return original(*args, **kwargs)


def _hook_worker(startup: Startup, worker: Any) -> None:
    _hook_class(
        startup,
        worker,
        WORKER_METHODS | AFTER_START_METHODS,
        {"init_device": _init_device, "compile_or_warm_up_model": _last_of_worker},
    )


def _init_device(
    name: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    worker = args[0]
    if worker.device_config.device_type == "cuda":
        # Those where this process has a context: none yet, and none is made by reading.
        guarded(lambda: startup.timeline.read_devices("auto"))
    with startup.step(name):
        result = original(*args, **kwargs)
    runner = getattr(worker, "model_runner", None)
    guarded(lambda: _hook_class(startup, runner, RUNNER_METHODS))
    return result


def _last_of_worker(
    name: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    with startup.step(name):
        result = original(*args, **kwargs)
    startup.complete("Worker")
    return result


def _loader(
    _: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    guarded(lambda: _hook_class(startup, args[0], LOADER_METHODS))
    return original(*args, **kwargs)


def _buffers(
    name: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    with startup.step(name) as step:
        result = original(*args, **kwargs)
        guarded(lambda: step.notes.update(buffer_notes(args[0])))
        return result


def _processing(
    name: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    with startup.step(name) as step:
        try:
            return original(*args, **kwargs)
        finally:
            step.notes.update(startup.take_often())


def _weights(
    name: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    function = getattr(original, "__name__", name)
    files = listed_files((*args, *kwargs.values()))
    watch = WeightsWatch(
        function,
        files,
        startup.step,
        startup.tensor_point if startup.has_tensors else None,
    )
    if function == SEQUENTIAL and args and isinstance(args[0], list):
        args = (Watched(args[0], watch.begin), *args[1:])
    return watch.follow(original(*args, **kwargs))


def _often(
    _: str, startup: Startup, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    # For a context manager that is entered for each layer: sums, and no entry of its own.
    return _summed(startup, original(*args, **kwargs))


_AROUND: dict[str, Callable[..., Any]] = {
    "span": _span,
    "front": _front,
    "children": _children,
    "core": _core,
    "core end": _core_end,
    "core ended": _core_ended,
    "caches": _caches,
    "worker made": _worker_made,
    "worker": _worker,
    "loader": _loader,
    "buffers": _buffers,
    "processing": _processing,
    "weights": _weights,
    "often": _often,
}


def _hook_class(
    startup: Startup,
    instance: Any,
    methods: dict[str, str],
    arounds: dict[str, Callable[..., Any]] | None = None,
) -> None:
    """Wraps methods on the class of ``instance``, whatever it is and wherever they come from."""
    kind = type(instance)
    for method, name in methods.items():
        around = functools.partial((arounds or {}).get(method, _span), name)
        key = f"{kind.__module__}:{kind.__qualname__}.{method}"
        startup.present[key] = wrap(kind, method, _reordered(around))


@contextlib.contextmanager
def _summed(startup: Startup, manager: AbstractContextManager[Any]) -> Iterator[Any]:
    before_bytes, begin_ns = snapshot("counters", None).host.rss_bytes, time.monotonic_ns()
    try:
        with manager as value:
            yield value
    finally:
        startup.often_count += 1
        startup.often_ns += time.monotonic_ns() - begin_ns
        startup.often_rss_bytes += snapshot("counters", None).host.rss_bytes - before_bytes
