"""Settings of the reader for a folder that `effrec data sample` has made."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.dataset_base import DatasetConfig

SAMPLE = "sample"
"""The family's name."""


@dataclass
class SampleFolderConfig(DatasetConfig):
    """A sample that was written into a folder of its own; its filters and its split are those of its parent.

    Attributes:
        path: the folder.
    """

    path: str | None = None
