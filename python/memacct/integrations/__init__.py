"""Joins to other libraries. Each module imports its host library; nothing else does."""
