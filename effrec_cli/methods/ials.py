"""Method ials: implicit alternating least squares."""

from __future__ import annotations

from effrec_cli.methods.factors.method import Factorisation


class IALSMethod(Factorisation):
    """Implicit alternating least squares, one side solved after the other (papers/cadc, section 1.3)."""
