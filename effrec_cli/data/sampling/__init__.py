"""Samples of a dataset's training rows, decided by a hash of what a row says and by nothing else."""

from effrec_cli.data.sampling.hashing import kept_in_epoch
from effrec_cli.data.sampling.rows import training_hashes
from effrec_cli.data.sampling.sample import sample, sampled_hash

__all__ = ["kept_in_epoch", "sample", "sampled_hash", "training_hashes"]
