"""What of a dataset is on this machine: raw files, prepared folders, and whether they are sound."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from effrec_cli.data import cache
from effrec_cli.data.load import open_source
from effrec_cli.data.raw import RawFiles
from effrec_cli.schema.dataset_base import DatasetConfig


@dataclass(frozen=True)
class Holding:
    """One dataset on this machine.

    Attributes:
        raw: its raw files, where the family keeps them under the data root; else None.
        prepared: its prepared folders, one for each content and settings.
    """

    raw: RawFiles | None
    prepared: list[Path] = field(default_factory=list)

    @property
    def state(self) -> str:
        """Returns `prepared`, `raw`, `absent`, or `at hand` where nothing needs to be fetched."""
        if self.prepared:
            return "prepared"
        if self.raw is None:
            return "at hand"
        return "raw" if self.raw.present else "absent"

    @property
    def bytes(self) -> int:
        """Returns the bytes on disk."""
        folders = [*self.prepared, *([self.raw.folder] if self.raw else [])]
        return sum(path.stat().st_size for folder in folders for path in folder.glob("*"))

    def verify(self) -> list[str]:
        """Returns what is wrong with the files, after hashing them all; empty when all is well."""
        raw = self.raw.verify() if self.raw and self.raw.folder.exists() else []
        return raw + [f"{folder}: {what}" for folder in self.prepared for what in cache.verify(folder)]


def holding(config: DatasetConfig, data_root: Path) -> Holding:
    """Returns what of a dataset is on this machine."""
    source = open_source(config, data_root)
    raw = getattr(source, "raw", None)
    name = re.compile(re.escape(config.name) + r"-[0-9a-f]{12}")
    folders = (path for path in (data_root / "prepared").glob("*") if path.is_dir())
    return Holding(
        raw if isinstance(raw, RawFiles) else None,
        sorted(path for path in folders if name.fullmatch(path.name)),
    )
