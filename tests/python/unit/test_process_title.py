"""What a title says of a process: pure text, in the forms that vLLM and Python give it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memacct import _core


@pytest.mark.parametrize(
    ("title", "role", "rank"),
    [
        # vLLM's set_process_title()
        ("VLLM::EngineCore", "engine_core", None),
        ("VLLM::EngineCore_DP0", "engine_core", "DP0"),
        ("VLLM::Worker", "worker", None),
        ("VLLM::Worker_TP0", "worker", "TP0"),
        ("VLLM::Worker_DP1_PP0_TP3_EP7", "worker", "DP1_PP0_TP3_EP7"),
        ("VLLM::APIServer_0", "api_server", "0"),
        ("VLLM::APIServer_DP2", "api_server", "DP2"),
        ("VLLM::DPCoordinator", "dp_coordinator", None),
        ("prod-7::EngineCore", "engine_core", None),  # VLLM_PROCESS_NAME_PREFIX
        # vLLM's commands, where setproctitle is not installed or no title is set
        ("/usr/bin/python3 /usr/local/bin/vllm serve model --port 1", "api_server", None),
        ("python3.12 -u -m vllm.entrypoints.openai.api_server --model m", "api_server", None),
        ("python /usr/bin/vllm bench latency", "python", None),
        # Python's
        (
            "python -c from multiprocessing.resource_tracker import main;main(5)",
            "resource_tracker",
            None,
        ),
        ("python -c from multiprocessing.forkserver import main; main(3, 6)", "fork_server", None),
        ("python -c from multiprocessing.spawn import spawn_main; spawn_main()", "python", None),
        ("/opt/python3.13t", "python", None),
        ("-bash", "shell", None),
        ("/bin/sh -c vllm serve model", "shell", None),
        # others
        ("VLLM::EngineCoreX", None, None),
        ("VLLM::Worker_", None, None),
        ("::Worker", None, None),
        ("grep VLLM::Worker", None, None),
        ("nvidia-smi", None, None),
        ("pythonista", None, None),
        ("", None, None),
    ],
)
def test_roles(title: str, role: str | None, rank: str | None) -> None:
    assert _core._role_of(title) == (role, rank)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("VLLM::EngineCor", "engine_core"),
        ("VLLM::Worker_TP", "worker"),
        ("VLLM::Worker", "worker"),
        ("VLLM::APIServer", "api_server"),
        ("VLLM::DPCoordin", "dp_coordinator"),
        ("VLLM::Engine", None),  # not cut: too short
        ("python3.11", "python"),
        ("bash", "shell"),
    ],
)
def test_a_name_serves_where_there_is_no_title(name: str, role: str | None) -> None:
    assert _core._role_of("", name) == (role, None)


def test_a_title_is_preferred_to_a_name() -> None:
    assert _core._role_of("sleep 1", "VLLM::Worker") == (None, None)


@pytest.mark.parametrize(
    ("cmdline", "title"),
    [
        (b"sleep\x00100\x00", "sleep 100"),
        (b"VLLM::EngineCore\x00\x00\x00\x00\x00\x00", "VLLM::EngineCore"),  # padded
        (b"python\x00-c\x00import a\nimport b\x00", "python -c import a import b"),
        (b"a\x00\x00b\x00", "a  b"),  # an empty argument
        (b"", ""),
        (b"\x00\x00", ""),
        (b"caf\xc3\xa9\x00", "café"),
        (b"\xff\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80", "\ufffd" * 10),
        (b"\xe2\x82", "\ufffd\ufffd"),  # cut
        (b"\xf0\x9f\x98\x80 \xe2\x82\xac", "\U0001f600 €"),
        (b"x" * 5000, "x" * 4096),
    ],
)
def test_titles(cmdline: bytes, title: str) -> None:
    assert _core._title_from_cmdline(cmdline) == title


@given(st.binary(max_size=64))
def test_any_bytes_make_one_printable_line(cmdline: bytes) -> None:
    title = _core._title_from_cmdline(cmdline)
    assert not any(character < " " or character == "\x7f" for character in title)
    assert title == title.rstrip(" ")
    _core._role_of(title, title)


@given(st.text(st.characters(exclude_categories=["C"]), max_size=64))
def test_what_is_utf8_stays_as_it_is(text: str) -> None:
    assert _core._title_from_cmdline(text.encode()) == text.rstrip(" ")
