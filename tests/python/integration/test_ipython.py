"""The IPython magics, in a real shell of another process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("IPython")

SHELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
shell = InteractiveShell.instance(colors="nocolor")
answers = []
for cell in ["%load_ext memacct", *json.load(sys.stdin)]:
    with capture_output(display=False) as said:
        done = shell.run_cell(cell)
    error = done.error_before_exec or done.error_in_exec
    answers.append([said.stdout + said.stderr, done.result, error and type(error).__name__])
json.dump(answers[1:], sys.stdout)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What each cell of CELLS printed, gave and raised: (text, value, error)."""
    home: Path = tmp_path_factory.mktemp("home")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SHELL],
        input=json.dumps(list(CELLS.values())),
        env={**os.environ, "IPYTHONDIR": str(home), "HOME": str(home)},
        check=False,
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CELLS, json.loads(done.stdout), strict=True))


CELLS = {
    "cell": "%%memacct\nblock = bytearray(64 << 20)\nlen(block)",
    "kept": "len(block)",
    "line": "%memacct other = bytearray(32 << 20)",
    "value": "%memacct --devices none 'a  {b} $c' + \"d\"",
    # As large as what is held for good, so that only a sample sees it.
    "free": "del block, other",
    "peak": "%%memacct --hz=2000\nfor _ in range(5):\n    bytearray(48 << 20)",
    "fails": "%%memacct\nmore = bytearray(16 << 20)\n1 / 0",
    "statements": "%%memacct\nx = 1\ny = 2",
    "nothing": "%memacct",
    "rate": "%memacct --hz often f()",
    "option": "%memacct --rate 3 f()",
    "much": "%memacct --hz 1e9 f()",
    "beside": "%%memacct f()\nf()",
}


def growth_mib(text: str, term: str) -> float:
    found = re.search(rf"host +{term} +\+([\d.]+) MiB", text)
    assert found, text
    return float(found[1])


def test_a_cell_and_a_line(answers: dict[str, list[Any]]) -> None:
    text, value, error = answers["cell"]
    assert (value, error) == (64 << 20, None)
    assert growth_mib(text, "rss_anon") == pytest.approx(64, abs=4)
    assert re.search(r"^peak rss_bytes: [\d.]+ MiB", text, re.MULTILINE)
    assert answers["kept"][1] == 64 << 20  # the cell's names are the user's
    assert growth_mib(answers["line"][0], "rss_anon") == pytest.approx(32, abs=4)
    assert answers["value"][1:] == ["a  {b} $cd", None]  # the code as it was written
    assert answers["statements"][1:] == [None, None]


def test_the_peak_of_what_is_gone_again(answers: dict[str, list[Any]]) -> None:
    text, _, error = answers["peak"]
    assert error is None
    found = re.search(r"peak rss_bytes: at least ([\d.]+) MiB \(largest sample\)", text)
    assert found, text
    assert float(found[1]) > 64


def test_an_error_is_the_users_and_what_it_took_is_told(answers: dict[str, list[Any]]) -> None:
    text, _, error = answers["fails"]
    assert error == "ZeroDivisionError"
    assert growth_mib(text, "rss_anon") == pytest.approx(16, abs=4)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("nothing", "there is no code to measure"),
        ("rate", "--hz often is not a number"),
        ("option", "--rate is not --hz N or --devices WHICH"),
        ("much", "sample_hz=1000000000.0 must be above 0"),
        ("beside", "'f()' is not an option; the code goes below"),
    ],
)
def test_wrong_usage_is_one_sentence(answers: dict[str, list[Any]], cell: str, said: str) -> None:
    text, _, error = answers[cell]
    assert error == "UsageError"
    (line,) = text.strip().splitlines()
    assert said in line


def test_memacct_does_not_import_ipython() -> None:
    script = "import sys, memacct; memacct.load_ipython_extension; print('IPython' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert done.stdout == b"False\n"
