"""How a named vision model is given its images: at which size, and in which colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effrec_cli.data.atomic import read_json
from effrec_cli.models.encoders.hub import RESIZE

# Vision models that interpolate their table of places, or count places without one.
# fmt: off
_ANY_SIZE = frozenset((
    "dinov2", "dinov2_with_registers", "dinov3_vit", "vit", "vit_msn", "deit", "ijepa", "clip_vision_model",
    "siglip_vision_model",
))
# fmt: on
_USUAL = (224, 224)
_GREY = (0.5, 0.5, 0.5)
_AS_THEY_ARE = {"image_mean": (0.0, 0.0, 0.0), "image_std": (1.0, 1.0, 1.0)}


@dataclass(frozen=True)
class Pixels:
    """What becomes of an image before a model reads it; the whole of it is stretched, and nothing cut off.

    Attributes:
        size: height and width, in pixels.
        mean: of each colour, of values from 0 to 1; it is taken off them.
        std: of each colour; they are divided by it.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def facts(self) -> dict[str, Any]:
        """Returns all of it, and by which rule images are stretched, as JSON."""
        return {
            "size": list(self.size),
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": RESIZE,
        }


def pixels_of(folder: Path, config: Any) -> Pixels:
    """Returns how a folder's vision model is given images.

    Their size is the one that the folder's image processor ends with, its crop's where it crops, if the model
    reads any size; DINOv2 has places for 518 pixels and is used with 224. Otherwise it is the model's own.

    Args:
        folder: in Hugging Face's layout; its image processor's settings may be missing.
        config: of the vision model.
    """
    said = _processor(folder)
    own, used = _sides(getattr(config, "image_size", None)), _used(said)
    if own is None or (used is not None and _reads(config, used)):
        own = used or _USUAL
    colours = _AS_THEY_ARE if said.get("do_normalize") is False else said
    mean, std = (tuple(colours.get(name) or _GREY) for name in _AS_THEY_ARE)
    return Pixels(own, mean, std)


def _processor(folder: Path) -> dict[str, Any]:
    """Returns the settings of a folder's image processor, which newer folders keep among others."""
    alone = read_json(folder / "preprocessor_config.json")
    if alone is not None:
        return alone
    found = (read_json(folder / "processor_config.json") or {}).get("image_processor")
    return found if isinstance(found, dict) else {}


def _used(said: dict[str, Any]) -> tuple[int, int] | None:
    """Returns the height and width with which an image processor ends, or None where it keeps images'."""
    if said.get("do_center_crop", True) and (crop := _sides(said.get("crop_size"))) is not None:
        return crop
    return _sides(said.get("size")) if said.get("do_resize", True) else None


def _sides(given: Any) -> tuple[int, int] | None:
    """Returns the height and width of one of the forms in which they are written."""
    if isinstance(given, dict):
        side = given.get("shortest_edge")
        given = (given.get("height", side), given.get("width", side))
    elif isinstance(given, int):
        given = (given, given)
    if not isinstance(given, (list, tuple)) or len(given) != 2 or None in given:
        return None
    return int(given[0]), int(given[1])


def _reads(config: Any, size: tuple[int, int]) -> bool:
    """Returns whether a model takes images of some size, which have a patch at least."""
    patch = _sides(getattr(config, "patch_size", None)) or (1, 1)
    return config.model_type in _ANY_SIZE and size[0] >= patch[0] and size[1] >= patch[1]
