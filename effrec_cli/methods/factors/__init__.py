"""Matrix factorisations as methods, and kept for methods that start from their vectors."""
