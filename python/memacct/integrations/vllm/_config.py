"""The ``memacct`` key of vLLM's ``additional_config``, checked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from memacct._errors import ConfigError
from memacct._units import MIB, parse_bytes
from memacct.accounting.policy import SHORTFALL_POLICIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memacct.accounting.policy import ShortfallPolicy

PROFILERS = ("native", "stock")
ENABLE_VARIABLE = "MEMACCT_VLLM"
TIMELINE_VARIABLE = "MEMACCT_TIMELINE"
LONGEST_WAIT_S = 86400
SECONDS_ALLOWED = f"a number of seconds from 0 to {LONGEST_WAIT_S}"

# KV tensors are rounded up to the allocator's 2 MiB pages, one by one, and kernels load
# lazily: what is left free when the cap binds must cover both.
_DEFAULT_MARGIN_BYTES = 128 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginConfig:
    """What the user asked of memacct in this engine.

    Attributes:
        profiler: ``native`` corrects the engine's profiling, ``stock`` leaves it alone.
        timeline: record the start's steps; "tensors": each tensor of the weights too.
        on_shortfall: what to do when the budget no longer fits: clamp, wait or error.
        wait_s: seconds that ``wait`` waits before it clamps.
        margin_bytes: what stays free when the budget is capped.
        strict: raise memacct's own faults instead of going on as stock.
        report_dir: where each process writes its report as JSON; None: nowhere.
        asks_report: the configuration itself, not the environment, names a ``report_dir``.
    """

    profiler: Literal["native", "stock"] = "stock"
    timeline: bool | Literal["tensors"] = False
    on_shortfall: ShortfallPolicy = "clamp"
    wait_s: float = 60.0
    margin_bytes: int = _DEFAULT_MARGIN_BYTES
    strict: bool = False
    report_dir: str | None = None
    asks_report: bool = False

    @property
    def is_native(self) -> bool:
        """Whether the profiling is to be corrected."""
        return self.profiler == "native"

    @property
    def reports(self) -> bool:
        """Whether processes report their start; a stock engine's do where that is asked for."""
        return self.is_native or self.asks_report or bool(self.timeline)


def read_config(
    additional_config: object,
    *,
    environ: Mapping[str, str] = os.environ,
    default_profiler: Literal["native", "stock"] = "stock",
) -> PluginConfig:
    """Returns the checked configuration; ``additional_config`` wins over the environment.

    Args:
        additional_config: vLLM's; anything but a dict with a ``memacct`` key says nothing.
        environ: where ``MEMACCT_VLLM``, ``MEMACCT_TIMELINE`` and ``MEMACCT_REPORT_DIR`` are
            looked up.
        default_profiler: what applies when neither says anything.

    Raises:
        ConfigError: a key or value is wrong; one sentence names it and what is allowed.
    """
    given = additional_config.get("memacct") if isinstance(additional_config, dict) else None
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise ConfigError(
            f"additional_config['memacct'] is {given!r}, but must be a dict of {', '.join(_KEYS)}"
        )
    for key in given:
        if key not in _KEYS:
            raise ConfigError(
                f"additional_config['memacct'] has the unknown key {key!r}; "
                f"allowed are {', '.join(_KEYS)}"
            )
    values: dict[str, Any] = {
        "profiler": _profiler_of(environ, default_profiler),
        "timeline": timeline_of(environ),
    }
    if environ.get("MEMACCT_REPORT_DIR"):
        values["report_dir"] = environ["MEMACCT_REPORT_DIR"]
    for key, value in given.items():
        name, check = _KEYS[key]
        values[name] = check(key, value)
    values["asks_report"] = given.get("report_dir") is not None
    return PluginConfig(**values)


def _profiler_of(
    environ: Mapping[str, str], default: Literal["native", "stock"]
) -> Literal["native", "stock"]:
    value = environ.get(ENABLE_VARIABLE, "")
    if value in ("", "0"):
        return "stock" if value == "0" else default
    if value == "1":
        return "native"
    raise ConfigError(f"{ENABLE_VARIABLE}={value!r} is not understood; allowed are 0 and 1")


def timeline_of(environ: Mapping[str, str]) -> bool | Literal["tensors"]:
    """Returns what ``MEMACCT_TIMELINE`` asks for.

    Raises:
        ConfigError: its value is wrong.
    """
    value = environ.get(TIMELINE_VARIABLE, "")
    if value == "tensors":
        return "tensors"
    if value in ("", "0", "1"):
        return value == "1"
    raise ConfigError(
        f"{TIMELINE_VARIABLE}={value!r} is not understood; allowed are 0, 1 and tensors"
    )


def _wrong(key: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"additional_config['memacct'][{key!r}] is {value!r}; allowed is {allowed}")


def _one_of(allowed: tuple[str, ...]) -> Any:
    def check(key: str, value: object) -> object:
        if value not in allowed:
            raise _wrong(key, value, " | ".join(allowed))
        return value

    return check


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, value, "true | false")
    return value


def _timeline(key: str, value: object) -> object:
    if not isinstance(value, bool) and value != "tensors":
        raise _wrong(key, value, 'true | false | "tensors"')
    return value


def _seconds(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(key, value, SECONDS_ALLOWED)
    if not 0 <= value <= LONGEST_WAIT_S:
        raise _wrong(key, value, SECONDS_ALLOWED)
    return float(value)


def _bytes(key: str, value: object) -> int:
    allowed = "a number of bytes that is not negative, such as 134217728 or '128MiB'"
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise _wrong(key, value, allowed)
    try:
        return parse_bytes(value)
    except ValueError:
        raise _wrong(key, value, allowed) from None


def _folder(key: str, value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise _wrong(key, value, "the path of a folder")
    return value


# The keys that users write, the field each one sets, and its check.
_KEYS: dict[str, tuple[str, Any]] = {
    "profiler": ("profiler", _one_of(PROFILERS)),
    "timeline": ("timeline", _timeline),
    "on_shortfall": ("on_shortfall", _one_of(SHORTFALL_POLICIES)),
    "wait_s": ("wait_s", _seconds),
    "margin": ("margin_bytes", _bytes),
    "strict": ("strict", _flag),
    "report_dir": ("report_dir", _folder),
}
