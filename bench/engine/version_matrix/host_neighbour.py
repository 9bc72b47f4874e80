"""A neighbour of host memory: obeys as memacct_neighbour.py does, with anonymous pages.

hold BYTES takes and touches them, release gives everything back.
"""

from __future__ import annotations

import json
import mmap
import sys


def main() -> None:
    """Until the end of the input; one line of JSON after each command."""
    held: list[mmap.mmap] = []
    print(json.dumps({"error": None}), flush=True)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        error = None
        if command == "hold":
            block = mmap.mmap(-1, int(argument), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            for offset in range(0, len(block), mmap.PAGESIZE):
                block[offset] = 1
            held.append(block)
        elif command == "release":
            while held:
                held.pop().close()
        else:
            error = f"unknown command {command!r}"
        print(json.dumps({"error": error}), flush=True)


if __name__ == "__main__":
    main()
