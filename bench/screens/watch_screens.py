"""Makes the pictures of `memacct watch` and `snap` in docs/images: what a real terminal showed.

    python bench/screens/watch_screens.py [--png FOLDER]

Runs the commands in tmux on a simulated GPU beside programs that move, presses keys, resizes the
terminal, and keeps each screen as SVG. With --png also as PNG, by a headless Chromium, to look at.
Needs tmux, and memacct with its command in the environment of this Python.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from memacct.sim import SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGES = Path(__file__).parents[2] / "docs" / "images"
MACHINE: dict[str, Any] = {
    "total_bytes": "80GiB",
    "reserved_bytes": "562MiB",
    "unattributed_bytes": "1200MiB",
}
PROMPT = "$ "
# A program that takes and releases device memory as its input says, in MiB.
PROGRAM = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
device, context, held = ctypes.c_int(), ctypes.c_void_p(), []
assert cuda.cuInit(0) == 0
assert cuda.cuDeviceGet(ctypes.byref(device), int(sys.argv[1])) == 0
assert cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device) == 0
for line in sys.stdin:
    mib = int(line)
    if mib > 0:
        held.append(ctypes.c_uint64())
        assert cuda.cuMemAlloc_v2(ctypes.byref(held[-1]), ctypes.c_size_t(mib << 20)) == 0
    else:
        assert cuda.cuMemFree_v2(held.pop()) == 0
    print(mib, flush=True)
"""


class Program:
    """One of them, under a name of its own."""

    def __init__(self, gpu: SimulatedGpu, folder: Path, name: str, device: int, *mib: int) -> None:
        (folder / name).write_text(PROGRAM)
        self.process = gpu.popen(
            ["python", name, str(device)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for size in mib:
            self.move(size)

    def move(self, mib: int) -> None:
        """Takes so many MiB; below 0 it releases what it took last."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{mib}\n")
        stdin.flush()
        assert int(stdout.readline()) == mib

    def end(self) -> None:
        self.process.communicate(timeout=30)


class Pane:
    """A tmux server of its own with one pane that runs a shell."""

    def __init__(self, columns: int, lines: int, environ: dict[str, str]) -> None:
        self._socket = f"memacct-{secrets.token_hex(4)}"
        size = ["-x", str(columns), "-y", str(lines)]
        shell = ["env", f"PS1={PROMPT}", "sh"]
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, *shell, environ=environ)
        self._tmux("set", "-g", "status", "off")
        self.resize(columns, lines)

    def _tmux(self, *arguments: str, environ: dict[str, str] | None = None) -> str:
        command = ["tmux", "-L", self._socket, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
        return done.stdout

    def keys(self, *names: str) -> None:
        self._tmux("send-keys", *names)

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p", "-e")

    def wait(self, pattern: str, timeout_s: float = 15.0) -> str:
        deadline_s = time.monotonic() + timeout_s
        while True:
            screen = self.screen()
            if re.search(pattern, Text.from_ansi(screen).plain):
                return screen
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{pattern!r} did not come:\n{Text.from_ansi(screen).plain}")
            time.sleep(0.1)

    def close(self) -> None:
        self._tmux("kill-server")


@contextlib.contextmanager
def machine() -> Iterator[tuple[SimulatedGpu, dict[str, str]]]:
    with SimulatedGpu(count=2, **MACHINE) as gpu:
        environ = gpu.environ()
        environ |= {"TERM": "xterm-256color", "PATH": f"{Path(sys.executable).parent}:{os.defpath}"}
        environ.pop("NO_COLOR", None)
        yield gpu, environ


def svg(screen: str, columns: int, title: str) -> str:
    lines = [Text.from_ansi(line) for line in screen.rstrip("\n").split("\n")]
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    for text in lines:
        console.print(text, no_wrap=True, overflow="crop", end="\n")
    # The same text gives the same file: rich's own identifier is a hash of it.
    picture = console.export_svg(title=title)
    # No fonts from elsewhere: whatever monospaced one is there.
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def png(source: Path, folder: Path) -> None:
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', source.read_text())
    assert size is not None, source
    width, height = (int(float(each)) + 1 for each in size.groups())
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium is not None, "--png needs Chromium"
    subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--disable-background-networking", f"--window-size={width},{height}"),
            *(f"--screenshot={folder / source.stem}.png", source.resolve().as_uri()),
        ],
        check=True,
        capture_output=True,
    )


def command(text: str) -> str:
    return f"clear; {sys.executable} -m memacct {text}"


def screens() -> Iterator[tuple[str, str, int, str]]:
    """Name, screen, columns and title of each picture."""
    with contextlib.ExitStack() as stack:
        gpu, environ = stack.enter_context(machine())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        serve = Program(gpu, folder, "serve.py", 0, 31 << 10)
        train = Program(gpu, folder, "train.py", 0, 10 << 10, 1946)
        evaluate = Program(gpu, folder, "evaluate.py", 1, 38 << 10, 20 << 10)
        for program in (serve, train, evaluate):
            stack.callback(program.end)
        pane = Pane(140, 20, environ)
        stack.callback(pane.close)
        pane.keys(command("watch --interval 0.5"), "Enter")
        pane.wait("q quit")
        train.move(-1)
        pane.wait("released 1.90 GiB")
        serve.move(5 << 10)
        evaluate.move(-1)
        pane.wait("took 5.00 GiB")
        pane.wait("[2-9] s ago")
        yield "watch-140", pane.screen(), 140, "memacct watch"
        pane.resize(80, 20)
        pane.keys("Down", "Down", "Enter")
        yield (
            "watch-80-picked",
            pane.wait(r"(?s)pid \d+ .*own \d"),
            80,
            "memacct watch, a process picked",
        )
        pane.resize(60, 14)
        pane.keys("s")
        yield "watch-60", pane.wait("sort: rss|q quit"), 60, "memacct watch, 60 columns"
        pane.resize(80, 24)
        pane.keys("?")
        yield "watch-help", pane.wait("any key leaves it"), 80, "memacct watch, ?"
        pane.keys("x", "q")
        pane.wait(r"^\$")
        pane.resize(80, 18)
        pane.keys("export NO_COLOR=1; " + command("watch"), "Enter")
        yield "watch-no-color", pane.wait("q quit"), 80, "NO_COLOR=1 memacct watch"
        pane.keys("q")
        pane.keys("unset NO_COLOR; " + command(f"snap --pid {serve.process.pid}"), "Enter")
        yield "snap-pid", pane.wait("GiB of room"), 80, "memacct snap --pid"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--png", type=Path, help="also as PNG, into this folder")
    options = parser.parse_args()
    for name, screen, columns, title in screens():
        path = IMAGES / f"{name}.svg"
        path.write_text(svg(screen, columns, title))
        print(path)
        if options.png is not None:
            options.png.mkdir(parents=True, exist_ok=True)
            png(path, options.png)


if __name__ == "__main__":
    main()
