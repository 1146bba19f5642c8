"""Losses over a large catalogue, in Triton and in PyTorch; depends on torch alone (and Triton where it is)."""
