"""Settings of the reader for Duolingo's data of the 2018 shared task."""

from __future__ import annotations

from dataclasses import dataclass

from effrec_cli.schema.dataset_base import DatasetConfig
from effrec_cli.schema.fields import setting


@dataclass
class DuolingoConfig(DatasetConfig):
    """One track of the 2018 shared task on second language acquisition modelling (SLAM).

    Attributes:
        path: folder with the track's files, read where it is, or their archive, which is imported; None reads
            what `effrec data import` took.
        files: what the names of the track's files begin with.
        archive: what its publisher calls the file to get.
        license: what the publisher asks for.
        bad_rows: `error` stops at a malformed exercise, `drop` counts and skips it.
    """

    path: str | None = None
    files: str = "es_en.slam.20190204"
    archive: str = "data_es_en.tar.gz"
    license: str = ""
    bad_rows: str = setting("error", choices=("error", "drop"))
