"""One question in this process: ``python -m questions NAME FILE [short]``."""

from __future__ import annotations

import importlib
import json
import signal
import sys
from pathlib import Path


def main() -> None:
    """Writes the answer to the file at once, so that a broken end cannot cut it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by its limit"))
    name, out, *rest = sys.argv[1:]
    answer = importlib.import_module(f"questions.{name}").ask("short" in rest).to_dict()
    whole = Path(f"{out}.part")
    whole.write_text(json.dumps(answer))
    whole.rename(out)


if __name__ == "__main__":
    main()
