"""Parts of methods that train a network to score a user with an item (task `top_n`)."""
