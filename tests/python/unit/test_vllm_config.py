from __future__ import annotations

from dataclasses import fields

import pytest

from memacct import _errors
from memacct._units import MIB
from memacct.integrations.vllm import _config
from memacct.integrations.vllm._config import PluginConfig, read_config


def read(given: object, **environ: str) -> PluginConfig:
    return read_config({"memacct": given}, environ=environ)


def test_every_field_has_a_key() -> None:
    named = {field for field, _ in _config._KEYS.values()}
    # What says whether a key was given has none of its own.
    assert named == {field.name for field in fields(PluginConfig)} - {"asks_report"}


@pytest.mark.parametrize("nothing", [None, {}, {"other": 1}, "text", {"memacct": None}])
def test_nothing_said_is_stock(nothing: object) -> None:
    assert read_config(nothing, environ={}) == PluginConfig()
    assert not PluginConfig().is_native


def test_all_keys_are_taken() -> None:
    config = read(
        {
            "profiler": "native",
            "timeline": True,
            "on_shortfall": "wait",
            "wait_s": 5,
            "margin": "256MiB",
            "strict": True,
            "report_dir": "reports",
        }
    )
    assert config == PluginConfig(
        profiler="native",
        timeline=True,
        on_shortfall="wait",
        wait_s=5.0,
        margin_bytes=256 * MIB,
        strict=True,
        report_dir="reports",
        asks_report=True,
    )


@pytest.mark.parametrize("margin", [134217728, "128MiB", "134217728"])
def test_margins_are_sizes(margin: object) -> None:
    assert read({"margin": margin}).margin_bytes == 128 * MIB


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("profiler", "nativ", "native | stock"),
        ("profiler", True, "native | stock"),
        ("on_shortfall", "panic", "clamp | wait | error"),
        ("margin", -1, "not negative"),
        ("margin", "-1GiB", "not negative"),
        ("margin", 1.5, "not negative"),
        ("margin", True, "not negative"),
        ("wait_s", -0.1, "0 to 86400"),
        ("wait_s", float("nan"), "0 to 86400"),
        ("wait_s", "long", "0 to 86400"),
        ("strict", 1, "true | false"),
        ("timeline", "yes", "true | false"),
        ("report_dir", "", "a folder"),
        ("report_dir", 3, "a folder"),
    ],
)
def test_a_wrong_value_is_one_sentence(key: str, value: object, allowed: str) -> None:
    with pytest.raises(_errors.ConfigError) as caught:
        read({key: value})
    message = str(caught.value)
    assert repr(key) in message
    assert repr(value) in message
    assert allowed in message
    assert "\n" not in message


def test_an_unknown_key_names_the_known_ones() -> None:
    with pytest.raises(_errors.ConfigError, match="'profilr'.*allowed are profiler, timeline"):
        read({"profilr": "native"})


def test_the_key_must_hold_a_dict() -> None:
    with pytest.raises(_errors.ConfigError, match="'native', but must be a dict"):
        read("native")


def test_configuration_errors_are_value_errors() -> None:
    assert issubclass(_errors.ConfigError, ValueError)


@pytest.mark.parametrize(
    ("environ", "given", "profiler"),
    [
        ({"MEMACCT_VLLM": "1"}, {}, "native"),
        ({"MEMACCT_VLLM": "1"}, {"profiler": "stock"}, "stock"),
        ({"MEMACCT_VLLM": "0"}, {"profiler": "native"}, "native"),
        ({"MEMACCT_VLLM": ""}, {}, "stock"),
    ],
)
def test_the_configuration_wins_over_the_environment(
    environ: dict[str, str], given: dict[str, str], profiler: str
) -> None:
    assert read(given, **environ).profiler == profiler


def test_a_wrong_environment_is_named() -> None:
    with pytest.raises(_errors.ConfigError, match="MEMACCT_VLLM='yes'.*0 and 1"):
        read({}, MEMACCT_VLLM="yes")


def test_the_worker_class_is_on_unless_told_otherwise() -> None:
    assert read_config(None, environ={}, default_profiler="native").is_native
    off = {"MEMACCT_VLLM": "0"}
    assert not read_config(None, environ=off, default_profiler="native").is_native
