"""Parts of methods that train tables of which few numbers are stored (papers/dsl)."""
