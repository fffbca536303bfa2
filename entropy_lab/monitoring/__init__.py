"""Runs that are still being written: read as they grow, and diagnosed at every step."""
