"""Measures on a real GPU what a dry run cannot see there: the costs of the driver and libraries."""

from __future__ import annotations

from memacct.calibration.run import calibrate

__all__ = ["calibrate"]
