"""memacct's variables for Ray's workers, which get only some of the driver's environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping

PREFIX = "MEMACCT_"
# Comma-separated, in addition to vLLM's own prefixes; read when Ray's actors are made.
# Source: vllm/ray/ray_env.py (0.32.0, 0.33.0), get_env_vars_to_copy.
VARIABLE = "VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY"


def reach_ray_workers(parallel_config: Any, environ: MutableMapping[str, str] = os.environ) -> None:
    """Has vLLM copy ``MEMACCT_*`` to workers that Ray starts, where there is any to copy.

    ``additional_config`` reaches them anyway, inside vLLM's own configuration.
    """
    if _uses_ray(parallel_config) and any(name.startswith(PREFIX) for name in environ):
        environ[VARIABLE] = with_prefix(environ.get(VARIABLE, ""))


def with_prefix(prefixes: str) -> str:
    """Returns the comma-separated ``prefixes`` with memacct's among them."""
    if PREFIX in (prefix.strip() for prefix in prefixes.split(",")):
        return prefixes
    return f"{prefixes},{PREFIX}" if prefixes.strip() else PREFIX


def _uses_ray(parallel_config: Any) -> bool:
    backend = getattr(parallel_config, "distributed_executor_backend", None)
    if backend == "ray" or getattr(backend, "uses_ray", False):
        return True
    # Engines that Ray starts, one for each data-parallel rank, are given the same variables.
    return bool(getattr(parallel_config, "data_parallel_backend", None) == "ray")
