"""Parts of methods that train a network to tell the label of a row (task `ctr`)."""
