"""The ring and its records: known answers. `make tsan` runs it under ThreadSanitizer."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cpp_program import built


def test_known_answers(tmp_path: Path) -> None:
    program = built(tmp_path, "check_ring", "address,undefined", "sample_record")
    done = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
