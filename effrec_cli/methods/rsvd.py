"""Method rsvd: a randomised singular value decomposition of the interactions."""

from __future__ import annotations

from effrec_cli.methods.factors.method import Factorisation


class RSVDMethod(Factorisation):
    """Randomised singular value decomposition of the interactions."""
