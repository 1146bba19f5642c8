"""Benchmarks: peers and ours on the same work, one process each, one record for each cell."""
