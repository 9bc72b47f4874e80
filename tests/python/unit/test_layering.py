"""A file imports only what lies below it; host libraries and headers stay where they belong."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PYTHON = [
    {"_units", "_errors", "_printable", "_container", "_foreground"},
    {"_mapping_delta", "cards"},
    {"_core", "_types"},
    {"_trace_events"},
    {"_trace"},
    {"_convert", "_mappings"},
    {"_snapshot", "_sampler", "_tree"},
    {"_measure"},
    {"_timeline_types", "_timeline_file", "_timeline_baseline"},
    {"_timeline_text", "_timeline_recording", "_timeline_span"},
    {"_timeline_records"},
    {"_timeline_read"},
    {"_timeline", "accounting", "_blackbox"},
    {"_blackbox_text"},
    {"profile", "reservations", "planning", "broker", "_allocators", "recording"},
    {"doctor", "launch"},
    {"report", "sim"},
    {"dry_run", "demo", "look", "exporter"},
    {"calibration"},
    {"integrations", "cli"},  # which never meet
    {"", "__main__"},  # the package itself
]
CPP = [
    {"units", "error", "boxed", "clock", "broker_client", "process", "nvml_types", "mapping_table"},
    {"text", "proc_file", "dylib", "ring", "mapping_totals", "procmap_query"}
    | {"process_folder", "process_title"},
    {"kib_lines", "sample_record", "recording_format"},
    {"proc_text", "cgroup_text", "system_text", "mapping_kind", "process_stat", "rss_error"}
    | {"nvml_api", "nvml_reading", "cuda_api", "process_watch"},
    {"smaps_text", "page_regions", "recording"},
    {"host", "cgroup", "mappings", "process_list", "process_tree", "visible_devices", "system"}
    | {"nvml_instances", "unified"},
    {"told_bytes", "allocator", "host_record"},
    {"identity", "fingerprint", "nvml_session", "residency", "process_memory", "limits"}
    | {"recording_file"}
    | {"timeline_line"},
    {"device", "reading_room", "shares", "ordinals"},
    {"device_session"},
    {"collector", "target_cache"},
    {"device_reader"},
    {"snapshot", "tree_snapshot", "device.cpp"},  # device.hpp is the face of the three below it
    {"periodic_thread", "driver_budget", "trace_rows", "device_turns"} | {"sampler_error"},
    {"sampler", "recorder"},
    {"sample_stream", "recorded_rings"},
    {"device_sampling"},
    {"sampler.cpp"},
]
ONLY_IN = {
    "torch": {"integrations"},
    "vllm": {"integrations"},
    "typer": {"cli"},
    "rich": {"cli", "demo"},
    "prometheus_client": {"exporter"},
    "pytest": {"integrations"},
    "IPython": {"integrations"},
}


def level(layers: list[set[str]], name: str) -> int:
    found = [number for number, names in enumerate(layers) if name in names]
    assert found, f"{name}: give it a level in {Path(__file__).name}"
    return found[0]


def imports(file: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(file.relative_to(ROOT / "python").parts[: -node.level or None])
            module = f"{package}.{node.module or ''}".strip(".") if node.level else node.module
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def python_files() -> list[Path]:
    return sorted((ROOT / "python" / "memacct").rglob("*.py"))


@pytest.mark.parametrize("file", python_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_python_imports_point_downwards(file: Path) -> None:
    group = file.relative_to(ROOT / "python" / "memacct").parts[0].removesuffix(".py")
    group = "" if group == "__init__" else group
    for name in imports(file):
        top, _, rest = name.partition(".")
        below = rest.partition(".")[0]
        if top == "memacct" and below != group:
            assert level(PYTHON, below) < level(PYTHON, group), f"{group} imports {name}"
        # The demo's engine side is programs that the engine's own Python runs.
        if "engine_side" not in file.parts:
            assert group in ONLY_IN.get(top, {group}), f"{group} imports {name}"


def cpp_files() -> list[Path]:
    return sorted(
        file for folder in ("include", "src") for file in (ROOT / "cpp" / folder).rglob("*.?pp")
    )


@pytest.mark.parametrize("file", cpp_files(), ids=lambda file: file.name)
def test_cpp_includes_point_downwards_and_know_no_python(file: Path) -> None:
    own = level(CPP, file.name if file.name in {"device.cpp", "sampler.cpp"} else file.stem)
    for name in re.findall(r'#\s*include\s*[<"]([^">]+)[">]', file.read_text()):
        assert not re.search(r"pybind11|Python\.h|^nvml\.h|^cuda", name), (
            f"{name} does not belong here"
        )
        if name.startswith("memacct/") and Path(name).stem != file.stem:
            assert level(CPP, Path(name).stem) < own, f"{file.name} includes {name}"


def test_only_the_bindings_name_python() -> None:
    files = [f for f in (ROOT / "cpp").rglob("*") if f.suffix in {".hpp", ".cpp", ".h", ".c"}]
    naming = {f.relative_to(ROOT / "cpp").parts[0] for f in files if "pybind11/" in f.read_text()}
    assert naming == {"bindings"}
