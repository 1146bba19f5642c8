"""An image's bytes to a square of RGB pixels, and what is wrong with bytes that give none."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.errors import EnvironmentFault

MOST_BYTES = 64 << 20
"""Of one image as it is kept; more is no product photo, and would be held whole."""
MOST_PIXELS = 50_000_000
"""Of one image, by its header: what says more is refused before a pixel is unpacked."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_LARGE_PIXELS = 8_000_000
_ORIENTATION = 0x0112
_one_large = threading.Lock()


class BadImageError(ValueError):
    """An image that cannot be used; the message completes "the image ...".

    Attributes:
        kind: `missing`, `damaged`, `too_large` or `twice`.
    """

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


def require_pillow() -> None:
    """Raises EnvironmentFault where Pillow, which decodes images, is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise EnvironmentFault(
            "Reading images needs Pillow, which is not installed.",
            where="dataset.images; a prepared dataset opens without it",
            fix="pip install 'effrec[images]'",
        ) from error


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keeps Pillow from warning of images' sizes and odd metadata: what matters of them is told by name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def decode(data: bytes, size: int) -> NDArray[np.uint8]:
    """Returns an image as uint8 [size, size, 3], RGB.

    The whole image is resized, without a crop, by Pillow's bilinear filter. Of an animation it is the first
    frame; EXIF orientation is applied; transparency lies on white; 16-bit grey keeps its upper 8 bits. A JPEG
    of more than twice the size is decoded at 1/2, 1/4 or 1/8 of its own, never below twice the size.

    Args:
        data: JPEG, PNG, WebP, GIF or BMP, by its content.
        size: side of the square in pixels.

    Raises:
        BadImageError: it is none of these, is damaged or cut short, or has more than MOST_PIXELS pixels.
    """
    from PIL import Image, UnidentifiedImageError

    check_bytes(len(data))
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image, _room_for(image.width * image.height):
            return _square(image, size)
    except (BadImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BadImageError("damaged", "is no JPEG, PNG, WebP, GIF or BMP") from error
    except Image.DecompressionBombError as error:
        raise BadImageError("too_large", f"has more than {MOST_PIXELS:,} pixels") from error
    except Exception as error:  # decoders raise whatever comes of damaged bytes
        raise BadImageError("damaged", f"cannot be decoded ({_in_a_line(error)})") from error


def check_bytes(count: int) -> None:
    """Raises BadImageError where no image has so many bytes."""
    if not count:
        raise BadImageError("damaged", "is empty")
    if count > MOST_BYTES:
        raise BadImageError("too_large", f"has {count:,} bytes, more than {MOST_BYTES:,}")


def _room_for(pixels: int) -> AbstractContextManager[Any]:
    """Returns what to hold while so many pixels are decoded: large images go one at a time."""
    if pixels > MOST_PIXELS:
        raise BadImageError("too_large", f"has {pixels:,} pixels, more than {MOST_PIXELS:,}")
    return _one_large if pixels > _LARGE_PIXELS else nullcontext()


def _square(image: Any, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    image.draft(None, (2 * size, 2 * size))
    image.load()
    coloured = _coloured(_upright(image)).resize((size, size), Image.Resampling.BILINEAR)
    if coloured.mode == "RGBA":
        white = Image.new("RGBA", coloured.size, "white")
        coloured = Image.alpha_composite(white, coloured).convert("RGB")
    return np.asarray(coloured)


def _upright(image: Any) -> Any:
    """Returns the image turned as its EXIF says; metadata that cannot be read say nothing."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        turn = turns.get(image.getexif().get(_ORIENTATION))
    except Exception:  # of damaged metadata; the pixels are sound
        return image
    return image if turn is None else image.transpose(turn)


def _coloured(image: Any) -> Any:
    """Returns the image as RGB, or as RGBA where any of it may be transparent."""
    from PIL import Image

    if image.mode.startswith("I"):  # Pillow would cut 16 bits off at 255, which makes a photo white
        grey = np.clip(np.asarray(image).astype(np.int32), 0, 65535) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _in_a_line(error: Exception) -> str:
    """Returns an error's message, short and printable."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(each for each in text if each.isprintable())[:120]
