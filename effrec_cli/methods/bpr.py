"""Method bpr: Bayesian personalised ranking by stochastic gradients."""

from __future__ import annotations

from effrec_cli.methods.factors.method import Factorisation


class BPRMethod(Factorisation):
    """Bayesian personalised ranking by stochastic gradients."""
