"""The page of a recording: it asks nobody for anything, and what is in it is escaped."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from recorded_run import write_run

from memacct.recording import read_run
from memacct.report.run_account import account_of
from memacct.report.run_html import run_page
from memacct.report.run_spans import spans_of

if TYPE_CHECKING:
    from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MAKERS = (".google.com", ".googleapis.com", ".gstatic.com")  # whom the browser asks by itself
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--disable-extensions"),
)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    run = read_run(write_run(tmp_path / "run.memacct"))
    file = tmp_path / "run.html"
    text = run_page(account_of(run), spans_of(run))
    file.write_text(text, encoding="utf-8", errors="backslashreplace")
    return file


def test_nothing_in_it_names_a_place_to_ask(page: Path) -> None:
    text = page.read_text()
    assert not re.findall(r"https?:|//\w+\.|@import|url\(|\bsrc=", text)
    assert re.findall(r'\bhref="([^"]*)"', text) == ["data:,"]
    assert "default-src 'none'" in text
    assert page.stat().st_size < 200_000


def test_names_end_neither_the_script_nor_the_markup(page: Path) -> None:
    text = page.read_text()
    assert text.count("</script>") == 2  # its own
    assert "<b>[red]" not in text
    assert "=&lt;b&gt;[red]" in text
    (data,) = re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)
    names = [each["name"] for each in json.loads(data)["host"]["series"]]
    assert names == ["python serve.py 100", "=<b>[red]</script>\\udcff 101"]


def in_a_browser(page: Path, folder: Path) -> tuple[str, set[str]]:
    """Returns what the page became, and the hosts that were asked for."""
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    log = folder / "net.json"
    done = subprocess.run(
        [
            *(browser, *QUIET, f"--user-data-dir={folder / 'profile'}", "--dump-dom"),
            "--host-resolver-rules=MAP * ~NOTFOUND",
            *(f"--log-net-log={log}", "--net-log-capture-mode=IncludeSensitive"),
            page.as_uri(),
        ],
        check=True,
        text=True,
        capture_output=True,
        timeout=120,
    )
    asked = re.findall(r'"url":"(?:https?|wss?)://([^/":]+)', log.read_text())
    return done.stdout, {host for host in asked if not host.endswith(MAKERS)}


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium is here")
def test_a_browser_draws_it_and_asks_nobody(page: Path, tmp_path: Path) -> None:
    drawn, hosts = in_a_browser(page, tmp_path)
    assert drawn.count("<svg height=") == 3  # host, one GPU, processes
    assert len(re.findall(r'<path d="M[^"]+" fill="var\(--p\d\)"', drawn)) == 3
    assert hosts == set()


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium is here")
def test_a_page_that_asks_is_seen_and_the_policy_stops_ours(page: Path, tmp_path: Path) -> None:
    image = '<img src="http://somebody.test/x.png">'
    asking = tmp_path / "asking.html"
    asking.write_text(image)
    assert in_a_browser(asking, tmp_path)[1] == {"somebody.test"}
    text = page.read_text()
    asking.write_text(text.replace("<main>", "<main>" + image))
    assert in_a_browser(asking, tmp_path)[1] == set()


#: Points at places all along a GPU's chart, and notes from where to where what it tells reaches.
POINTING = """<script>
const chart = document.querySelector("[data-chart=gpu]"), told = [];
for (let share = 0.2; share < 1; share += 0.05) {
  const svg = chart.querySelector("svg"), box = svg.getBoundingClientRect();
  const clientX = box.left + box.width * share;
  svg.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY: box.top + 50 }));
  const tip = chart.querySelector(".tip").getBoundingClientRect();
  if (tip.width) told.push([tip.left, tip.right]);
}
document.body.dataset.told = JSON.stringify(told);
</script></body>"""


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium is here")
def test_what_a_finger_is_told_stays_on_a_phones_screen(page: Path, tmp_path: Path) -> None:
    narrow = page.read_text().replace("</style>", "body { width: 390px }</style>")
    page.write_text(narrow.replace("</body>", POINTING))
    drawn, _ = in_a_browser(page, tmp_path)
    (told,) = re.findall(r'data-told="([^"]*)"', drawn)
    reaches = json.loads(told)
    assert len(reaches) >= 10
    assert min(left for left, _ in reaches) >= 0
    assert max(right for _, right in reaches) <= 390
