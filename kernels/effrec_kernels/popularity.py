"""Ids drawn in proportion to a power of their counts: an alias table with integer thresholds.

Source: Vose, "A linear algorithm for generating random numbers with a given distribution" (1991); here the
sweep over light and heavy columns is written with prefix sums (as Hübschle-Schneider and Sanders, "Parallel
weighted random sampling", ESA 2019, do in parallel), so that ten million items take seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .rng import MAX_ITEMS
from .tensors import check_tensor
from .values import not_negative, real_number

# What a column holds, in units of weight; V of them fit int64 for every V below 2^31.
FULL = 1 << 32


@dataclass(frozen=True)
class Popularity:
    """A distribution over items to draw from, and its logarithm. `torch.save` and `torch.load` keep it.

    Attributes:
        thresholds: int32 [V], bits of an unsigned number: of 2^32 coins, how many keep the column's own id.
        alias: int32 [V], the id that the others get.
        log_q: float32 [V], log of the probability that a draw gives the item, from the table as it is, with
            every rounding in it; -inf for an item that is never drawn.
        log_frequency: float32 [V], log of the (smoothed) share of counts: how often a target is the item.
    """

    thresholds: Tensor
    alias: Tensor
    log_q: Tensor
    log_frequency: Tensor

    def to(self, device: torch.device | str) -> Popularity:
        """Returns the table on `device`."""
        tensors = self.thresholds, self.alias, self.log_q, self.log_frequency
        return Popularity(*(tensor.to(device) for tensor in tensors))

    def mixed_log_q(self, in_batch: float) -> Tensor:
        """Returns log of (1 - s) q + s f, float32 [V]: a share s of the slots are targets of other rows.

        q is the table's probability and f the frequency of targets.
        """
        return mixed_log_q(self.log_q, self.log_frequency, in_batch)


# Tensors alone are in it: what `torch.save` wrote of a table, `torch.load(weights_only=True)` may read.
torch.serialization.add_safe_globals([Popularity])


def popularity(counts: Tensor, power: float = 1.0, smoothing: float = 1.0) -> Popularity:
    """Returns a table that draws items in proportion to (count + smoothing) ** power.

    Args:
        counts: [V], how often each item was a target; any number type, not negative.
        power: 1 draws by popularity, 0 uniformly, 0.75 is word2vec's choice between; any finite number.
        smoothing: added to each count, so that items never seen are drawn now and then; with 0 they never
            are, and their `log_q` is -inf.

    Returns:
        the table, on the device of `counts`. Weights are rounded to V 2^32 parts of the whole.

    Raises:
        ValueError: a count is negative or not finite, nothing could be drawn, or a number is out of range.
        TypeError: counts are no tensor of real numbers, or a number is none.
    """
    weights = _checked(counts, smoothing)
    thresholds, alias = _alias_table(_parts(_powered(weights, power)))
    wrapped = torch.where(thresholds >= FULL >> 1, thresholds - FULL, thresholds).int()
    return Popularity(
        wrapped.to(counts.device),
        alias.int().to(counts.device),
        _log_q(thresholds, alias).float().to(counts.device),
        (weights / weights.sum()).log_().float().to(counts.device),
    )


def mixed_log_q(log_q: Tensor | float, log_frequency: Tensor, in_batch: float) -> Tensor:
    """Returns log of (1 - s) exp(log_q) + s exp(log_frequency) for a share s in [0, 1], float32 [V].

    Raises:
        ValueError, TypeError: the share is outside of [0, 1], or what should be a tensor or a number is none.
    """
    if not 0 <= real_number("in_batch", in_batch) <= 1:
        raise ValueError(f"in_batch must be a share of the slots in [0, 1], not {in_batch}")
    check_tensor("log_frequency", log_frequency)
    given = log_q if isinstance(log_q, Tensor) else real_number("log_q", log_q)
    drawn = log_frequency.new_full((), given) if isinstance(given, float) else given
    log_share = math.log(in_batch) if in_batch > 0 else -math.inf
    log_rest = math.log1p(-in_batch) if in_batch < 1 else -math.inf
    return torch.logaddexp(drawn + log_rest, log_frequency + log_share)


def _checked(counts: Tensor, smoothing: float) -> Tensor:
    """Returns counts plus smoothing in float64 on the CPU, as shares of the largest."""
    check_tensor("counts", counts)
    if counts.is_complex():
        raise TypeError(f"counts must be real numbers, not {counts.dtype}")
    if counts.dim() != 1 or not 1 <= len(counts) <= MAX_ITEMS:
        raise ValueError(f"counts must be [V] with V from 1 to 2^31 - 1, not {list(counts.shape)}")
    smoothing = not_negative("smoothing", smoothing)
    weights = counts.detach().cpu().double() + smoothing
    if not (torch.isfinite(weights) & (weights >= smoothing)).all():
        raise ValueError("counts must be finite and not negative")
    if not weights.any():
        raise ValueError("all counts are 0: nothing can be drawn; use smoothing above 0")
    return weights / weights.max()


def _powered(weights: Tensor, power: float) -> Tensor:
    """Returns the weights to a power as shares of the largest, which none can exceed: nothing overflows."""
    exponent = real_number("power", power)
    if not math.isfinite(exponent):
        raise ValueError(f"power must be finite, not {power}")
    logs = (weights.log() * exponent).masked_fill_(weights == 0, -math.inf)
    return logs.sub_(logs.max()).exp_()


def _parts(weights: Tensor) -> Tensor:
    """Returns int64 [V] that sum to V 2^32 exactly, in proportion to `weights`."""
    whole = len(weights) * FULL
    ends = (weights.cumsum(0) / weights.sum() * whole).round_().long().clamp_(max=whole)
    # Nothing may fall behind the last item that can be drawn.
    ends[int(weights.nonzero().max()) :] = whole
    return ends.diff(prepend=ends.new_zeros(1))


def _alias_table(parts: Tensor) -> tuple[Tensor, Tensor]:
    """Returns thresholds in [0, 2^32) and aliases, int64 [V]: each column's own share, and who has the rest.

    Light columns (below 2^32) are filled up by heavy ones in turn. Let D be the running sum of what light
    ones lack and E that of what heavy ones have too much. The light column that brings the lack from D_t to
    D_(t+1) takes from the first heavy one with E > D_t; a heavy one whose E has been reached keeps 2^32 +
    E - D, and the next heavy one fills it up.
    """
    light, heavy = (parts < FULL).nonzero().squeeze(1), (parts >= FULL).nonzero().squeeze(1)
    lack = (FULL - parts[light]).cumsum(0)
    excess = (parts[heavy] - FULL).cumsum(0)
    before = lack - (FULL - parts[light])
    thresholds, alias = parts.clone(), torch.arange(len(parts))
    alias[light] = heavy[torch.searchsorted(excess, before, right=True)]
    # What is lacking when a heavy one's excess has just been used up; nobody needs the last one's.
    lacks = torch.cat([lack.new_zeros(1), lack])
    used_up = lacks[torch.searchsorted(lacks, excess[:-1])]
    thresholds[heavy[:-1]] = FULL + excess[:-1] - used_up
    alias[heavy[:-1]] = heavy[1:]
    thresholds[heavy[-1]] = FULL
    # A full column needs no coin, and 2^32 no unsigned word: its alias is itself.
    full = (thresholds == FULL).nonzero().squeeze(1)
    thresholds[full], alias[full] = 0, full
    return thresholds, alias


def _log_q(thresholds: Tensor, alias: Tensor) -> Tensor:
    """Returns float64 [V]: log of the probability of each item, exactly that of the draw in `samplers.py`.

    A column's share of first words is not quite 1 / V: multiply-high gives it floor(2^32 / V) or one more.
    """
    number = len(alias)
    starts = (torch.arange(number + 1) * FULL + (number - 1)).div_(number, rounding_mode="floor")
    words = starts.diff().double() / FULL
    coins = thresholds.double() / FULL
    total = words * coins
    return total.index_add_(0, alias, words * (1 - coins)).log_()
