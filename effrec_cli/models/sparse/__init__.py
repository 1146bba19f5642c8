"""Tables of which a few numbers a row are stored, and how these move to where they matter (papers/dsl)."""
