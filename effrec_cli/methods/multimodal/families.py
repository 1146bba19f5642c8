"""What the kinds of models of the transformers package differ in: their shape, and the row to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from effrec_cli.errors import ConfigError
from effrec_cli.methods.content import networks
from effrec_cli.models.encoders.hub import LATE_NORM
from effrec_cli.models.encoders.reader import RowPooling

# fmt: off
_LEAD_TEXT = frozenset((
    "bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "deberta", "deberta-v2", "mpnet",
    "modernbert", "ernie", "roformer", "rembert",
))
_LEAD_IMAGE = LATE_NORM | {
    "vit", "deit", "beit", "dinov2", "dinov2_with_registers", "dinov3_vit", "vit_msn", "vit_mae",
}
# fmt: on
_ENDED = frozenset(("clip_text_model", "altclip_text_model", "metaclip_2_text_model"))
_CLASSLESS = frozenset(("siglip_vision_model", "siglip2_vision_model", "ijepa"))
# Before it was mended, CLIP's config.json named this one; the token that ends a text is the last then.
_OLD_EOS = 2


def shape_of(config: Any) -> tuple[int, int] | None:
    """Returns width and number of layers of a model, or None where its layers have several widths."""
    widths = getattr(config, "hidden_sizes", None) or []
    layers, depths = getattr(config, "num_hidden_layers", None), getattr(config, "depths", None)
    if not isinstance(layers, int) or depths is not None or len(set(widths)) > 1:
        return None
    return networks.width_of(config), layers


def pooling_of(config: Any, folder: Path, given: str, modality: str) -> RowPooling:
    """Returns the row that stands for an item; for `auto` the one that such a model was made for.

    That is the first token of encoders and of vision models that have one, the token that ends a text for
    CLIP, the last token for SigLIP's texts, and the mean over an item's tokens for all others, causal
    language models among them (papers/iisan sections 1.10 and 7.3). A folder of sentence-transformers says
    itself.
    """
    kind = given
    if given == "auto":
        kind = _sentence_pooling(folder) if modality == "text" else ""
        kind = kind or _made_for(config.model_type, modality)
    eos = getattr(config, "eos_token_id", None)
    known = kind == "eos" and isinstance(eos, int) and eos != _OLD_EOS
    return RowPooling(kind, eos if known else None)


def _made_for(kind: str, modality: str) -> str:
    if modality == "text" and kind in _ENDED:
        return "eos"
    if modality == "text" and kind in networks.FILLED:
        return "last"
    return "cls" if kind in (_LEAD_TEXT if modality == "text" else _LEAD_IMAGE) else "mean"


def _sentence_pooling(folder: Path) -> str:
    """Returns how a folder of sentence-transformers pools, or nothing where it is none.

    What a hub name fetches lacks the sub-folder that says so; most such models take the mean.
    """
    if not (folder / "modules.json").is_file():
        return ""
    try:
        said = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "mean"
    return {"pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}.get(
        next((name for name, on in said.items() if on is True and name.startswith("pooling_mode_")), ""),
        "mean",
    )


def refuse_classless(config: Any, pooling: RowPooling, path: str) -> None:
    """Raises ConfigError where the first token is asked for of a vision model that has none for that."""
    if pooling.kind == "cls" and config.model_type in _CLASSLESS:
        raise ConfigError(
            "This vision model has no class token: its first token is the patch in the upper left corner.",
            where=f"{path}.pooling",
            fix=f"{path}.pooling=mean, or {path}.pooling=auto",
        )
