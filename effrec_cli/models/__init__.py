"""Modules that know nothing of configs or files."""
