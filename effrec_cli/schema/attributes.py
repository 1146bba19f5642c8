"""Which of the things that datasets know of users and items a network reads."""

from __future__ import annotations

KINDS = ("dense", "categories", "flags", "text")
"""Numbers; one of several values, such as a gender; any of several, such as genres; words."""
