"""Code that runs on the device; a matrix, or where negatives come from, is a tuple of what Triton takes."""
