"""The places of a GPU worker and its runner where memory is read, and their wrappers."""

from __future__ import annotations

import contextlib
import functools
import importlib
import weakref
from typing import TYPE_CHECKING, Any

import torch

from memacct.integrations.vllm._hooks import wrap
from memacct.integrations.vllm._own_time import own_time
from memacct.integrations.vllm._shortfall_core import RPC_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memacct.integrations.vllm._gpu_session import GPUSession

# The sessions of this process, newest last. MemorySnapshot is patched as a class, because
# every importer holds the class by a name of its own, so its readings find their session
# here. Weakly: a session holds its worker, and with it the model.
_sessions: list[weakref.ref[GPUSession]] = []

# Read free memory around what they do, and feed the budget, a log line or an assertion.
_RUNNER_READERS = ("profile_cudagraph_memory", "capture_model")
_WORKER_READERS = ("sleep",)
_MOVED = (
    "vLLM ends the start because others released memory while it measured itself, and what it "
    "took itself is not told by the driver. Once they stand still it starts; with "
    "--kv-cache-memory it does not compare"
)
# Take memory, and end with "out of memory" where it is not there.
_WORKER_TAKERS = (
    "load_model",
    "determine_available_memory",
    "initialize_from_config",
    "compile_or_warm_up_model",
)


def hook_measurements(session: GPUSession) -> None:
    """Makes vLLM's ``MemorySnapshot.measure`` tell the session of the measured device."""
    if not any(known() is session for known in _sessions):
        _sessions.append(weakref.ref(session))
    wrap(_mem_utils().MemorySnapshot, "measure", _around_measure)


def _around_measure(original: Any, snapshot: Any, *args: Any, **kwargs: Any) -> Any:
    result = original(snapshot, *args, **kwargs)
    for known in reversed(_sessions):
        session = known()
        if session is not None and _measures(snapshot, session):
            session.correct(snapshot, functools.partial(original, snapshot, *args, **kwargs))
            break
    return result


def _measures(snapshot: Any, session: GPUSession) -> bool:
    # Until init_device has chosen a device, the worker has none.
    device = getattr(session.worker, "device", None)
    if device is None:
        return False
    # Before 0.14 a snapshot names no device: it measures the current one, the worker's.
    return bool(device == getattr(snapshot, "device_", device))


def _mem_utils() -> Any:
    try:
        return importlib.import_module("vllm.utils.mem_utils")
    except ImportError:
        return importlib.import_module("vllm.utils")  # vLLM < 0.12


def hook_worker(session: GPUSession) -> None:
    """Wraps the worker's own methods. On the instance: any worker class composes."""

    def around_budget(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            available = original(*args, **kwargs)
        except AssertionError as error:
            session.guard(session.shortfall.explain, f"{_MOVED}: {error}")
            raise
        if session.worker.cache_config.kv_cache_memory_bytes:
            return available  # the user's own number: nothing was profiled
        settled = session.guard(session.settle, available)
        return available if settled is None else settled

    wrap(session.worker, "determine_available_memory", around_budget)
    for name in _WORKER_READERS:
        wrap(session.worker, name, _in_neutral_scope(session))
    for name in _WORKER_TAKERS:
        wrap(session.worker, name, _explaining(session, name))
    wrap(session.worker, "initialize_from_config", session.cache_sizes.around_allocation)
    wrap(session.worker, "compile_or_warm_up_model", session.cache_sizes.around_warm_up)
    session.after_start.hook()
    setattr(session.worker, RPC_NAME, functools.partial(_explain_cache, session))


def _explain_cache(session: GPUSession, needs: list[int], model_len: int, fitting: int) -> None:
    """Called by the engine core in each worker when the KV cache does not fit."""
    needed = needs[int(session.worker.rank) % len(needs)]
    session.guard(session.shortfall.explain_cache, needed, model_len, fitting)


def _explaining(session: GPUSession, name: str) -> Callable[..., Any]:
    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except torch.OutOfMemoryError as error:
            session.guard(session.shortfall.explain, f"out of memory in {name}: {error}")
            raise

    return around


def hook_runner(session: GPUSession) -> None:
    """Wraps the model runner's methods, once there is one."""
    runner = getattr(session.worker, "model_runner", None)
    for name in _RUNNER_READERS:
        wrap(runner, name, _in_neutral_scope(session))


def _in_neutral_scope(session: GPUSession) -> Callable[..., Any]:
    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not session.is_correcting:
            return original(*args, **kwargs)
        with session.neutral_scope():
            return original(*args, **kwargs)

    return around


@contextlib.contextmanager
def neutral_torch(session: GPUSession) -> Iterator[None]:
    """Replaces torch's two functions for free memory while the body runs.

    The originals are taken at entry: other code replaces the same functions.
    """
    places = [(torch.cuda, "mem_get_info"), (torch.accelerator, "get_memory_info")]
    originals = [(owner, name, getattr(owner, name, None)) for owner, name in places]
    for owner, name, original in originals:
        if original is not None:
            setattr(owner, name, _neutral(session, original))
    try:
        yield
    finally:
        for owner, name, original in originals:
            if original is not None:
                setattr(owner, name, original)


def _neutral(session: GPUSession, original: Callable[..., Any]) -> Callable[..., Any]:
    def memory_info(device: Any = None, *args: Any, **kwargs: Any) -> tuple[int, int]:
        if session.is_reading:
            # One of the two functions calls the other, and scopes nest: what the session gets
            # must be the driver's own number, so only the outermost call is corrected.
            raw: tuple[int, int] = original(device, *args, **kwargs)
            return raw
        session.is_reading = True
        try:
            free, total = original(device, *args, **kwargs)
        finally:
            session.is_reading = False
        with own_time:
            if _ordinal(device) != session.device_ordinal:
                return free, total
        return session.neutral_free(free), total

    return memory_info


def _ordinal(device: Any) -> int:
    if device is None:
        return int(torch.cuda.current_device())
    if isinstance(device, int):
        return device
    index: int | None = torch.device(device).index
    return int(torch.cuda.current_device()) if index is None else index
