"""One reading of a machine as families of Prometheus metrics: pure, without its client library.

A quantity that is unknown has no sample, and ``memacct_unknown`` says why. Labels are bounded:
processes beyond the largest are one row, ``pid="other"``, and all rows still add up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct.report.prometheus_device import add_device
from memacct.report.prometheus_host import add_host
from memacct.report.prometheus_types import Families

if TYPE_CHECKING:
    from memacct.report.prometheus_types import Family, Reading

SCHEMA_VERSION = 1


def metric_families(reading: Reading, *, most_processes_count: int = 64) -> tuple[Family, ...]:
    """Returns all metrics of a reading.

    Args:
        reading: what a scrape read.
        most_processes_count: rows of processes a device, and of watched processes; those that
            hold less are summed up.
    """
    families = Families()
    families.add("memacct_build_info", "The version.", 1, {"version": reading.version})
    for what, why in reading.problems:
        families.unknown(what, why)
    devices = reading.snapshot.devices
    families.add(
        "memacct_up",
        "Whether a source could be read.",
        int(devices is not None),
        {"source": "devices"},
    )
    families.add("memacct_up", "", 1, {"source": "host"})
    families.add(
        "memacct_device_read_errors_total",
        "Scrapes in which a driver was there and the devices could not be read.",
        reading.errors_count,
        {},
    )
    for device in devices or ():
        add_device(families, device, reading, most_processes_count)
    add_host(families, reading, most_processes_count)
    families.add(
        "memacct_scrape_duration_seconds",
        "What reading all of this took.",
        reading.duration_s,
        {},
    )
    return families.families()
