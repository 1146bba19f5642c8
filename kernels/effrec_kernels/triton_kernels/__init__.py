"""Triton kernels of the losses; import it only where Triton is."""
