"""Images of items: found in folders, tars and parquet, decoded to squares of pixels, kept beside the data."""
