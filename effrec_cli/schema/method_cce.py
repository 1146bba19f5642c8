"""Settings of method cce."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.fields import setting

LOSSES = ("ce", "ce_sampled", "cce", "cce_sampled", "bce", "gbce")


@dataclass
class CCEConfig:
    """Losses over a large catalogue (papers/cce sections 1.2 and 1.3).

    Attributes:
        name: always `cce`.
        loss: `ce` full softmax; `cce` the same value, a chunk of logits at a time; `ce_sampled` CE- with its
            [M, N, D] tensor; `cce_sampled` the same value without it; `bce` one negative; `gbce` gSASRec's.
        num_negatives: N, negatives drawn for each target.
        correction: added to the logits of negatives: `exact` log((V-1)/(N-r)) with r hits in the row,
            `constant` log((V-1)/(N+1)) (the official kernels'), `none`.
        gbce_t: calibration t of gBCE, 0 plain BCE and 1 unbiased.
        kernel: who computes: `auto`, `triton`, `torch` or `reference`; never what is computed.
        batch_size: sequences in a step, over all processes and micro-batches; None chooses a power of two
            from 16 to 256 that makes about a hundred steps an epoch.
        window: `last` trains on the last L+1 items of each user, `slide` on all, cut into windows of L
            elsewhere each epoch.
    """

    name: str = "cce"
    loss: str = setting("cce_sampled", choices=LOSSES)
    num_negatives: int = setting(255, low=1)
    correction: str = setting("exact", choices=("exact", "constant", "none"))
    gbce_t: float = setting(0.75, low=0, high=1)
    kernel: str = setting("auto", choices=("auto", "triton", "torch", "reference"))
    batch_size: int | None = setting(None, low=1)
    window: str = setting("slide", choices=("last", "slide"))
