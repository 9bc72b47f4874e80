"""``memacct metrics``: a real exporter beside the simulated GPU, scraped as Prometheus does."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from device_process import DeviceProcess
from prometheus_client.parser import text_string_to_metric_families

from memacct.sim import CallFault, Faults, SimulatedGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

METRICS = [sys.executable, "-m", "memacct", "metrics"]
MIB = 1 << 20
CONTEXT_BYTES = 400 * MIB
LIMIT_S = 20

Samples = dict[str, list[tuple[dict[str, str], float]]]


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with SimulatedGpu(total_bytes="32GiB", reserved_bytes="500MiB") as machine:
        yield machine


@contextlib.contextmanager
def exporter(gpu: SimulatedGpu | None, *options: str, **others: Any) -> Iterator[tuple[Any, str]]:
    """An exporter on a port of its own, and where it answers."""
    start = subprocess.Popen if gpu is None else gpu.popen
    command = [*METRICS, "--port", "0", *options]
    with start(command, stderr=subprocess.PIPE, text=True, **others) as process:
        try:
            line = process.stderr.readline()
            assert line.startswith("memacct metrics: http://"), line + process.stderr.read()
            yield process, line.split()[-1]
        finally:
            process.kill()


def get(url: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:  # noqa: S310 (our own)
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def scrape(url: str) -> Samples:
    status, _, text = get(url)
    assert status == 200, text
    return parsed(text)


def parsed(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def one(samples: Samples, name: str) -> float:
    (only,) = samples[name]
    return only[1]


def term(samples: Samples, name: str) -> float:
    return one(samples, f"memacct_device_{name}_bytes")


def test_the_metrics_are_the_machines_truth(gpu: SimulatedGpu) -> None:
    with gpu.tenant("2GiB") as tenant, exporter(gpu) as (_, url):
        for change, moves in ((0, 0), (1 << 30, 1)):
            if change:
                tenant.allocate(change)
            samples = scrape(url)
            (device,) = gpu.status().devices
            assert term(samples, "free") == device.free_bytes
            assert term(samples, "foreign") == device.process_used_bytes(tenant.pid)
            terms = ("free", "reserved", "own", "tree", "foreign", "unattributed")
            assert sum(term(samples, name) for name in terms) == device.total_bytes
            assert one(samples, "memacct_device_foreign_allocations_total") == moves
            assert one(samples, "memacct_device_foreign_allocated_bytes_total") == change
        ((labels, held),) = samples["memacct_device_process_bytes"]
        assert (labels["pid"], labels["owner"]) == (str(tenant.pid), "foreign")
        assert labels["name"] == "memacct_simctl"
        assert held == CONTEXT_BYTES + (3 << 30)
        tenant.close()
        samples = scrape(url)
        assert one(samples, "memacct_device_foreign_releases_total") == 1
        assert one(samples, "memacct_device_foreign_released_bytes_total") == held
        assert "memacct_device_process_bytes" not in samples
        assert not [name for name in samples if name == "memacct_unknown"]


def test_nvml_is_initialised_once(gpu: SimulatedGpu) -> None:
    """Each call of an nvmlInit adds 2 MiB to what nobody holds."""
    counting = Faults(calls=[CallFault(function="nvmlInit*", charge_bytes="+2MiB")])
    with exporter(gpu, faults=counting) as (_, url):
        for _ in range(5):
            samples = scrape(url)
            assert term(samples, "unattributed") == 2 * MIB
    assert gpu.status().devices[0].unattributed_bytes == 2 * MIB


def test_scrapes_at_once_are_whole_and_nothing_else_is_served(gpu: SimulatedGpu) -> None:
    with gpu.tenant("2GiB"), exporter(gpu) as (_, url), ThreadPoolExecutor(8) as pool:
        for samples in pool.map(scrape, [url] * 24):
            terms = ("free", "reserved", "own", "tree", "foreign", "unattributed")
            assert sum(term(samples, name) for name in terms) == term(samples, "total")
        base = url.removesuffix("/metrics")
        assert get(f"{base}/healthz")[::2] == (200, "ok\n")
        for path in ("/", "/metrics/x", "/favicon.ico"):
            assert get(base + path)[0] == 404
        assert get(f"{url}?name=x")[0] == 200
        with pytest.raises(urllib.error.HTTPError, match="501") as refused:
            urllib.request.urlopen(url, data=b"x", timeout=LIMIT_S)  # noqa: S310 (a POST)
        refused.value.close()


def test_a_slow_client_holds_up_nobody() -> None:
    with exporter(None) as (process, url):
        host, port = url.split("/")[2].split(":")
        with socket.create_connection((host, int(port))) as idle:
            idle.sendall(b"GET /metr")
            assert get(url)[0] == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0


def test_ctrl_c_ends_it_cleanly() -> None:
    with exporter(None) as (process, url):
        assert get(url)[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0
        assert process.stderr.read() == ""
        with pytest.raises(urllib.error.URLError):
            get(url)


def test_a_watched_process_is_own_and_its_children_are_the_tree(gpu: SimulatedGpu) -> None:
    with gpu.tenant("1GiB"), DeviceProcess(gpu) as parent:
        parent.run(f"context(); allocate({64 * MIB}); child = in_tree({32 * MIB})")
        watch = ("--pid", str(parent.pid))
        with exporter(gpu, *watch, "--tree") as (_, url):
            samples = scrape(url)
            assert term(samples, "own") == CONTEXT_BYTES + 64 * MIB
            assert term(samples, "tree") == CONTEXT_BYTES + 32 * MIB
            assert term(samples, "foreign") == CONTEXT_BYTES + (1 << 30)
            assert len(samples["memacct_process_rss_bytes"]) == 2
            info = samples["memacct_device_info"][0][0]
            assert info["attribution"] == "pid"
            # What it frees is no neighbour's move.
            parent.run("release()")
            assert one(scrape(url), "memacct_device_foreign_releases_total") == 0
            parent.run("child.end()")
            parent.kill()
            samples = scrape(url)
            assert samples["memacct_process_up"] == [({"pid": str(parent.pid)}, 0)]
            assert term(samples, "own") == 0
            assert "memacct_process_rss_bytes" not in samples
        plain = once(gpu, "--max-processes", "1")
        rows = {row["pid"] for row, _ in plain["memacct_device_process_bytes"]}
        assert len(rows) <= 2


def once(gpu: SimulatedGpu | None, *options: str) -> Samples:
    run = subprocess.run if gpu is None else gpu.run
    done = run(
        [*METRICS, "--once", *options],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        timeout=LIMIT_S,
    )
    return parsed(done.stdout)


def test_the_smaller_ones_are_one_row(gpu: SimulatedGpu) -> None:
    with contextlib.ExitStack() as tenants:
        held = [tenants.enter_context(gpu.tenant(f"{n}GiB")) for n in (3, 1, 2)]
        samples = once(gpu, "--max-processes", "1")
        rows = {row["pid"]: size for row, size in samples["memacct_device_process_bytes"]}
        assert rows == {
            str(held[0].pid): CONTEXT_BYTES + (3 << 30),
            "other": 2 * CONTEXT_BYTES + (3 << 30),
        }


@pytest.mark.parametrize("scenario", ["all-not-available", "host-pids", "gb10", "mig-parent"])
def test_what_is_not_told_has_no_sample(scenario: str) -> None:
    with SimulatedGpu.scenario(scenario) as machine:
        samples = once(machine)
    unknown = {(row["uuid"], row["what"]) for row, _ in samples.get("memacct_unknown", ())}
    assert all(labels["why"] for labels, _ in samples.get("memacct_unknown", ()))
    for labels, _ in samples["memacct_device_total_bytes"]:
        for name in ("reserved", "own", "tree", "foreign", "unattributed"):
            rows = samples.get(f"memacct_device_{name}_bytes", ())
            known = any(row["uuid"] == labels["uuid"] for row, _ in rows)
            assert known != ((labels["uuid"], f"device_{name}_bytes") in unknown), name
    if scenario == "all-not-available":
        assert "device_foreign_bytes" in {what for _, what in unknown}
    if scenario == "host-pids":  # nobody here has that number
        assert {row["name"] for row, _ in samples["memacct_device_process_bytes"]} == {""}
    if scenario == "gb10":
        assert samples["memacct_device_page_cache_bytes"]


def test_a_driver_that_fails_is_told_and_the_host_goes_on(gpu: SimulatedGpu) -> None:
    failing = Faults(
        calls=[CallFault(function="nvmlDeviceGetMemoryInfo*", error=999, after_count=60)]
    )
    with exporter(gpu, faults=failing) as (_, url):
        deadline = time.monotonic() + LIMIT_S
        assert "memacct_device_total_bytes" in scrape(url)
        while "memacct_device_total_bytes" in (samples := scrape(url)):
            assert time.monotonic() < deadline
        up = {labels["source"]: value for labels, value in samples["memacct_up"]}
        assert up == {"devices": 0, "host": 1}
        assert one(samples, "memacct_device_read_errors_total") >= 1
        assert any("999" in row["why"] for row, _ in samples["memacct_unknown"])
        assert samples["memacct_system_total_bytes"]


def test_without_a_driver_the_host_is_told() -> None:
    samples = once(None, "--pid", str(os.getpid()))
    assert "devices" in {labels["what"] for labels, _ in samples["memacct_unknown"]}
    assert one(samples, "memacct_process_rss_bytes") > 0
    assert one(samples, "memacct_system_total_bytes") > one(samples, "memacct_system_free_bytes")


def test_json_is_versioned() -> None:
    done = subprocess.run([*METRICS, "--json"], check=True, capture_output=True, timeout=LIMIT_S)
    told = json.loads(done.stdout)
    assert (told["schema_version"], told["kind"]) == (1, "metrics")
    assert {family["name"] for family in told["families"]} >= {"memacct_up", "memacct_unknown"}


def test_promtool_finds_nothing(gpu: SimulatedGpu) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    with gpu.tenant("1GiB"):
        text = gpu.run([*METRICS, "--once"], check=True, stdout=subprocess.PIPE).stdout
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, check=False, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


WITHOUT = """
import sys
sys.modules["prometheus_client"] = None
from memacct.cli import main
main()
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--host", "192.0.2.1"), "host='192.0.2.1' is not an address of this machine"),
        (("--host", "no.such.host.invalid"), "is not an address of this machine"),
        (("--pid", "4194304"), "there is no process 4194304"),
    ],
)
def test_errors_are_one_sentence(options: tuple[str, ...], said: str) -> None:
    refused([*METRICS, "--port", "0", *options], said)


def test_a_missing_extra_is_one_sentence() -> None:
    refused([sys.executable, "-c", WITHOUT, "metrics"], "pip install 'memacct[prometheus]'")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "metrics", "--json"], check=True, capture_output=True
    )
    assert json.loads(done.stdout)["kind"] == "metrics"


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused([*METRICS, "--port", port], f"port {port} of 127.0.0.1 is taken")


def refused(command: list[str], said: str) -> None:
    done = subprocess.run(command, check=False, text=True, capture_output=True, timeout=LIMIT_S)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("memacct: ")
    assert said in line
