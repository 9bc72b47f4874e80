"""Modules that are patched as they are imported: wherever they are found, by one patch or two."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from memacct.dry_run.engine_process import ENGINE_SIDE

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import importlib.util, json, sys
from memacct_after_import import AfterImport

class Editable:
    def find_spec(self, name, path, target=None):
        if name == "wanted":
            return importlib.util.spec_from_file_location(name, {file!r})
        return None

def patch(letter):
    def patched(module):
        module.letters.append(letter)
    return patched

if {editable}:
    sys.meta_path.append(Editable())
for letter in "ab":
    sys.meta_path.insert(0, AfterImport({{"wanted": patch(letter)}}.get))
from wanted import letters
import other
print(json.dumps([letters, other.letters]))
"""


@pytest.mark.parametrize("editable", [False, True])
def test_each_patch_is_called_once_after_the_module(tmp_path: Path, editable: bool) -> None:
    place = tmp_path / "elsewhere" if editable else tmp_path
    place.mkdir(exist_ok=True)
    (place / "wanted.py").write_text("letters = ['its own']\n")
    (tmp_path / "other.py").write_text("letters = ['its own']\n")
    text = PROGRAM.format(file=str(place / "wanted.py"), editable=editable)
    done = subprocess.run(
        [sys.executable, "-S", "-c", text],
        env={"PYTHONPATH": f"{ENGINE_SIDE}:{tmp_path}"},
        text=True,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == [["its own", "a", "b"], ["its own"]]
