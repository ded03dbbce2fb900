"""Targets, the backends that build and run engines for them, and what checks and packs the engines."""
