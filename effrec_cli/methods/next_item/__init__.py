"""Parts of method cce: its losses, and the choice between them."""
