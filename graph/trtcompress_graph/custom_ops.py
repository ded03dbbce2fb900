"""Operators that a user registered for the torch view; nothing else can run them."""

CUSTOM: set[tuple[str, str]] = set()
"""By domain and name."""
