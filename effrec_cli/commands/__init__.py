"""The verbs, one file each; imported only when called."""
