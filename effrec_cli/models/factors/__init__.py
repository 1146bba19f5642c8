"""Matrix factorisations in pure torch, on the device of what they are given."""
