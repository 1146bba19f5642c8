"""What frozen backbones give of all items, computed once and kept on the disk."""
