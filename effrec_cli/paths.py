"""Where effrec's own files and the user's data are."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """Returns the folder of the shipped Hydra configs, in a wheel or in a source tree."""
    shipped = PACKAGE / "conf"
    return shipped if shipped.is_dir() else PACKAGE.parent / "conf"


def default_data_root() -> Path:
    """Returns `$EFFREC_DATA`, or the user's cache folder, where imported and prepared data live."""
    named = os.environ.get("EFFREC_DATA")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "effrec"
