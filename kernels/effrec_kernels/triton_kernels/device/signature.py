"""What Triton is not to compile anew for: whole numbers that differ from call to call."""

# A number that is 1 or a multiple of 16 would else make a version of its own.
UNSPECIALIZED = (
    "row_start",
    "num_rows",
    "num_negatives",
    "num_items",
    "in_batch",
    "ignore_index",
    "first_group",
    "tile",
    "stride",
    "lanes",
    "negatives_row",
    "negatives_step",
    "first_row",
    "first_local",
    "num_pairs",
    "pairs_per_row",
)
