"""Losses over a large catalogue, in Triton where it runs and in PyTorch; depends on torch alone."""

from . import flops, reference
from .binary import binary_cross_entropy_sampled, gbce, gbce_beta
from .buckets import scalable_cross_entropy
from .dense import sampled_cross_entropy_dense
from .dispatch import KERNELS, KernelUnavailable, which_kernel
from .drawn import drawn_ids
from .linear import linear_cross_entropy
from .lookup import vocab_parallel_embedding, vocab_parallel_range
from .packed import PackedRows, column_dtype, pack, unpack
from .packed_linear import packed_linear_cross_entropy
from .packed_lookup import packed_embedding
from .packed_scores import packed_scores
from .parallel import vocab_parallel_cross_entropy
from .popularity import Popularity, mixed_log_q, popularity
from .rng import draw_negatives
from .row_adam import AdamRule, Moments, RowAdam, adam_rows_
from .row_sparse import RowSparse, coalesce
from .sampled import sampled_cross_entropy

__all__ = [
    "KERNELS",
    "AdamRule",
    "KernelUnavailable",
    "Moments",
    "PackedRows",
    "Popularity",
    "RowAdam",
    "RowSparse",
    "adam_rows_",
    "binary_cross_entropy_sampled",
    "coalesce",
    "column_dtype",
    "draw_negatives",
    "drawn_ids",
    "flops",
    "gbce",
    "gbce_beta",
    "linear_cross_entropy",
    "mixed_log_q",
    "pack",
    "packed_embedding",
    "packed_linear_cross_entropy",
    "packed_scores",
    "popularity",
    "reference",
    "sampled_cross_entropy",
    "sampled_cross_entropy_dense",
    "scalable_cross_entropy",
    "unpack",
    "vocab_parallel_cross_entropy",
    "vocab_parallel_embedding",
    "vocab_parallel_range",
    "which_kernel",
]
