"""Kernels that cannot run, told as what is wrong with a setting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import effrec_kernels

from effrec_cli.errors import EnvironmentFault


@contextmanager
def named_kernel(setting: str = "method.kernel") -> Iterator[None]:
    """Makes a kernel that cannot run an error about the setting that names it.

    Raises:
        EnvironmentFault: inside, a kernel could not run.
    """
    try:
        yield
    except effrec_kernels.KernelUnavailable as error:
        raise EnvironmentFault(str(error), where=setting, fix=f"{setting}=auto") from error
