"""Whose memory is it? Memory accounting of this process, its machine and its GPUs."""

from __future__ import annotations
