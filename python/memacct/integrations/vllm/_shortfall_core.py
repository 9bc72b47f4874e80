"""The engine core's side of a shortfall: how much KV cache is needed, asked of vLLM itself.

The core refuses, and knows what one request needs; the workers know who holds what. So the
core finds the numbers by calling vLLM's own planning function again, with other sizes, and has
each worker explain its own device.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from typing import TYPE_CHECKING, Any

from memacct.integrations.vllm._config import read_config
from memacct.integrations.vllm._hooks import after_import, wrap
from memacct.integrations.vllm._startup_stack import find_caller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

logger = logging.getLogger("vllm.memacct")

CORE_MODULE = "vllm.v1.engine.core"
RPC_NAME = "memacct_explain_cache"
# More than any device has: with it, only the plan itself can be refused.
_PLENTY_BYTES = 1 << 50


def hook_core() -> None:
    """Has this process's engine core explain a KV cache that does not fit. Only if enabled."""
    after_import(CORE_MODULE, _hook)


def hook_core_if_enabled() -> None:
    """Does so where an engine core is being made whose configuration enables memacct."""
    caller = find_caller()
    if caller.role == "core" and read_config(caller.additional_config).is_native:
        hook_core()


def _is_enabled(vllm_config: Any) -> bool:
    workers = str(getattr(getattr(vllm_config, "parallel_config", None), "worker_cls", ""))
    by_class = workers.startswith("memacct.")
    given = getattr(vllm_config, "additional_config", None)
    return read_config(given, default_profiler="native" if by_class else "stock").is_native


def _hook(module: ModuleType) -> None:
    wrap(module, "get_kv_cache_configs", _around_plan)
    wrap(module.EngineCore, "_initialize_kv_caches", _around_initialize)


class _Refused:
    """The last plan that vLLM refused in this process."""

    error: BaseException | None = None
    needs: list[int] | None = None
    model_len: int = 0
    fitting_model_len: int = 0


def _around_plan(plan: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return plan(*args, **kwargs)
    except ValueError as error:
        try:
            _study(error, plan, args, kwargs)
        except Exception:
            logger.debug("memacct: the refused plan could not be studied", exc_info=True)
        raise


def _around_initialize(original: Callable[..., Any], core: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return original(core, *args, **kwargs)
    except ValueError as error:
        if error is _Refused.error and _is_enabled(core.vllm_config):
            try:
                _have_explained(core)
            except Exception:
                logger.exception("memacct: the shortfall could not be explained")
        raise


def _have_explained(core: Any) -> None:
    arguments = (_Refused.needs, _Refused.model_len, _Refused.fitting_model_len)
    core.model_executor.collective_rpc(RPC_NAME, args=arguments)


# ---------------------------------------------------------------- asking vLLM


def _study(
    error: BaseException, plan: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Finds how much each worker needs, and the longest request that fits as it is.

    A dry run's memacct_dryrun_core asks in the same way, where memacct cannot be imported.
    """
    vllm_config, specs, available, *rest = args
    model = vllm_config.model_config
    asked_len = int(model.max_model_len)

    def fits(sizes: list[int], model_len: int) -> bool:
        model.max_model_len = model_len
        try:
            # A plan may change what it is given.
            plan(vllm_config, copy.deepcopy(specs), sizes, *copy.deepcopy(rest), **kwargs)
        except ValueError:
            return False
        finally:
            model.max_model_len = asked_len
        return True

    sizes = [int(size) for size in available]
    with _silence():
        needs = [_need(fits, sizes, worker, asked_len) for worker in range(len(sizes))]
        longest = _largest(lambda length: fits(list(sizes), length), asked_len)
    _Refused.error, _Refused.needs = error, needs
    _Refused.model_len, _Refused.fitting_model_len = asked_len, longest


def _need(
    fits: Callable[[list[int], int], bool], sizes: list[int], worker: int, model_len: int
) -> int:
    """Returns the fewest bytes with which ``worker`` passes, the others having plenty."""

    def passes(spared: int) -> bool:
        asked = [_PLENTY_BYTES] * len(sizes)
        asked[worker] = _PLENTY_BYTES - spared
        return fits(asked, model_len)

    return _PLENTY_BYTES - _largest(passes, _PLENTY_BYTES)


def _largest(passes: Callable[[int], bool], limit: int) -> int:
    """Returns the largest of 1 to ``limit`` that passes, if smaller ones do too; 0: none does."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if passes(middle):
            low = middle
        else:
            high = middle - 1
    return low


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the log lines of plans that are only asked for."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
