"""Engines packed for Triton Inference Server."""

from .check import check_repository
from .modelconfig import parse_config
from .options import TritonOptions
from .repository import write_repository

__all__ = ["TritonOptions", "check_repository", "parse_config", "write_repository"]
