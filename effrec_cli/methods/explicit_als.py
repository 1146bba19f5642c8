"""Method explicit_als: alternating least squares on ratings, with biases."""

from __future__ import annotations

from effrec_cli.methods.factors.method import Factorisation


class ExplicitALSMethod(Factorisation):
    """Alternating least squares on ratings, with biases."""
