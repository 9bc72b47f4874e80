"""What only a real GPU can answer: each assumption about its driver that memacct makes.

Run with ``pytest tests/gpu -rP``: each test also prints the figures that it found. The
questions are those of ``bench/gpu/answer.py``, which needs no pytest. Skipped where NVML lists
no device. Expects nobody else to move memory on the first device meanwhile.
"""

from __future__ import annotations

import json
import os

import pytest
from questions import NAMES
from questions.machine import NoGpuError, only_first_device, open_nvml
from questions.run import run_question

from memacct import SourceUnavailableError, _core


def has_device() -> bool:
    try:
        return len(_core.list_devices()) > 0
    except SourceUnavailableError:
        return False


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_device(), reason="NVML lists no device on this machine"),
]


@pytest.fixture(scope="module")
def environ() -> dict[str, str]:
    try:
        return {**os.environ, **only_first_device(open_nvml())}
    except NoGpuError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_assumed_holds(name: str, environ: dict[str, str]) -> None:
    answer = run_question(name, env=environ)
    print(answer["answer"], json.dumps(answer["figures"], indent=1), sep="\n")
    assert answer["status"] not in ("failed", "timed_out"), answer["answer"]
    if answer["status"] == "not_asked":
        pytest.skip("; ".join(answer["not_asked"]))
    assert [check for check in answer["checks"] if check["agrees"] is False] == []
