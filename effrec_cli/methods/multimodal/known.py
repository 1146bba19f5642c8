"""Shapes of the published backbones, to count parameters where neither a hub nor a folder is at hand."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache

from effrec_cli.errors import EnvironmentFault
from effrec_cli.methods.content.pretrained import folder_of
from effrec_cli.schema.backbone import BackboneConfig

# Names whose config.json says what the class of transformers has by default.
_DEFAULTS = {
    "bert-base-uncased": "BertConfig",
    "google-bert/bert-base-uncased": "BertConfig",
    "google/vit-base-patch16-224": "ViTConfig",
}


def of_known_shape(settings: BackboneConfig, modality: str, path: str) -> BackboneConfig:
    """Returns the settings of a backbone of the same shape with random weights, where it cannot be had here.

    Args:
        settings: of a backbone.
        modality: `text` or `image`; texts are then ready-made tokens of the dataset.
        path: the full key that holds the settings.

    Raises:
        EnvironmentFault: it can neither be had nor is its shape known.
    """
    if settings.name is None:
        return settings
    try:
        folder_of(settings.name, settings.revision, lambda line: None, path)
    except EnvironmentFault:
        if settings.name not in _DEFAULTS:
            raise
        tokenizer = "dataset" if modality == "text" else settings.tokenizer
        shape = folder_of_shape(settings.name).name
        return replace(settings, name=shape, revision=None, weights="random", tokenizer=tokenizer)
    return settings


@cache
def folder_of_shape(name: str) -> tempfile.TemporaryDirectory[str]:
    """Returns a folder with a config.json and nothing else; it goes when the process ends.

    Args:
        name: of a published backbone whose shape is known here, such as `bert-base-uncased`.
    """
    import transformers

    folder = tempfile.TemporaryDirectory(prefix="effrec-shape-")
    getattr(transformers, _DEFAULTS[name])().save_pretrained(folder.name)
    return folder
