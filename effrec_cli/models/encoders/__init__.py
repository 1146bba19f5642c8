"""Content encoders: an item's text or image to its vector."""
