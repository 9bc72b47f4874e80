"""The public names, and that importing them does nothing else."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import types

import pytest

import memacct
from memacct import _core


def test_all_lists_exactly_the_visible_names() -> None:
    visible = {
        name
        for name, value in vars(memacct).items()
        if not name.startswith("_")
        # The last is IPython's name for what %load_ext calls.
        and name not in {"annotations", "TYPE_CHECKING", "Any", "load_ipython_extension"}
        and not isinstance(value, types.ModuleType)
    }
    assert sorted(memacct.__all__) == memacct.__all__
    # Loaded when it is asked for, and kept from then on.
    assert set(memacct.__all__) == visible | {"__version__"} | set(memacct._LATER)
    assert dir(memacct) == memacct.__all__
    for name, module in memacct._LATER.items():
        assert getattr(memacct, name).__module__ == f"memacct.{module}"
        assert name in vars(memacct)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'snapshots'"):
        _ = memacct.snapshots


def test_snapshot_is_the_native_function() -> None:
    assert memacct.snapshot is _core.snapshot
    assert isinstance(memacct.snapshot, types.BuiltinFunctionType)
    signature = inspect.signature(memacct.snapshot)
    assert str(signature) == "(host='breakdown', devices='auto', *, limits=None)"


IMPORT_SCRIPT = """
import json, os, sys
def state():
    with open("/proc/self/maps") as maps:
        libraries = {line.split(None, 5)[5].strip() for line in maps if ".so" in line}
    return set(os.listdir("/proc/self/fd")), libraries, set(os.listdir("/proc/self/task"))
before = state()
modules = set(sys.modules)
import memacct
after = state()
print(json.dumps({
    "fds": len(after[0] - before[0]),
    "libraries": [os.path.basename(path) for path in sorted(after[1] - before[1])],
    "threads": len(after[2]),
    "modules": sorted(set(sys.modules) - modules),
}))
"""


def test_import_opens_no_file_loads_no_driver_and_starts_no_thread() -> None:
    child = subprocess.run(
        [sys.executable, "-c", IMPORT_SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = json.loads(child.stdout)
    assert found["fds"] == 0
    assert found["threads"] == 1
    assert not [name for name in found["libraries"] if "cuda" in name or "nvidia" in name]
    heavy = {"numpy", "typer", "rich", "torch", "vllm", "asyncio", "typing_extensions"}
    assert not heavy & {name.partition(".")[0] for name in found["modules"]}
    ours = {name for name in found["modules"] if name.startswith("memacct.")}
    expected = {"_core", "_errors"}
    assert ours == {f"memacct.{name}" for name in expected}
