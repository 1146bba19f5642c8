"""One image's bytes to pixels: every sort that is sound, and every one that is not."""

import io

import numpy as np
import pytest
from image_helpers import RED, broken, encoded, noise, picture, sorts
from PIL import Image

from effrec_cli.data.images import decode as decoding
from effrec_cli.data.images.decode import BadImageError, decode, quiet_pillow, require_pillow
from effrec_cli.errors import EnvironmentFault


@pytest.mark.parametrize("sort", sorts())
def test_every_sort_of_image_becomes_a_square_of_rgb(sort):
    pixels = decode(sorts()[sort], 8)
    assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)
    assert np.abs(pixels.astype(int) - RED).max() <= 4, "all of them are red"


@pytest.mark.parametrize("name", broken())
def test_what_is_no_image_says_what_is_wrong(name):
    data, kind = broken()[name]
    with pytest.raises(BadImageError) as caught, quiet_pillow():
        decode(data, 8)
    assert caught.value.kind == kind
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_the_whole_image_is_resized_by_the_bilinear_filter():
    image = noise(37, 23)
    expected = image.resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(decode(encoded(image), 16), np.asarray(expected))


def test_a_large_jpeg_is_decoded_small_and_looks_the_same():
    wave = np.sin(np.linspace(0, 9, 1000))[:, None, None] * 100 + 128
    image = Image.fromarray(np.broadcast_to(wave, (1000, 800, 3)).astype(np.uint8))
    data = encoded(image, "JPEG", quality=95)
    whole = Image.open(io.BytesIO(data)).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(decode(data, 32).astype(int) - np.asarray(whole).astype(int)).max() <= 3


def test_transparency_lies_on_white():
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 4, 8))
    pixels = decode(encoded(image), 8)
    assert pixels[4, 0].tolist() == [255, 0, 0]
    assert pixels[4, 7].tolist() == [255, 255, 255]


def test_sixteen_bits_of_grey_keep_the_upper_eight():
    levels = np.full((8, 8), 40_000, dtype=np.uint16)
    assert decode(encoded(Image.fromarray(levels)), 4)[0, 0].tolist() == [40_000 >> 8] * 3


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_and_black_and_white(mode):
    white = Image.new("RGB", (8, 8), "white").convert(mode)
    assert (decode(encoded(white), 4) == 255).all()


def test_an_image_stands_as_its_orientation_says():
    image = Image.new("RGB", (8, 8), "black")
    image.paste((255, 255, 255), (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3
    upright, turned = decode(encoded(image), 8), decode(encoded(image, exif=exif), 8)
    assert upright[0].min() == 255
    assert np.array_equal(turned, upright[::-1, ::-1])


def test_damaged_metadata_are_no_damaged_image():
    data = encoded(picture(), "JPEG", quality=95, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff")
    with quiet_pillow():
        assert decode(data, 4)[0, 0, 0] > 250


def test_more_bytes_than_an_image_has_are_refused_unread(monkeypatch):
    monkeypatch.setattr(decoding, "MOST_BYTES", 50)
    with pytest.raises(BadImageError, match="more than 50") as caught:
        decode(encoded(picture()), 4)
    assert caught.value.kind == "too_large"


def test_a_bomb_is_refused_before_a_pixel_is_unpacked(monkeypatch):
    def never(*args):
        raise AssertionError("decoded")

    monkeypatch.setattr(decoding, "_square", never)
    for data, kind in broken().values():
        if kind == "too_large":
            with pytest.raises(BadImageError, match="pixels"):
                decode(data, 4)


def test_large_images_take_turns(monkeypatch):
    monkeypatch.setattr(decoding, "_LARGE_PIXELS", 50)
    held = []
    monkeypatch.setattr(decoding, "_square", lambda *args: held.append(decoding._one_large.locked()))
    decode(encoded(picture(5, 5)), 4)
    decode(encoded(picture(9, 9)), 4)
    assert held == [False, True]
    assert not decoding._one_large.locked()


def test_without_pillow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(EnvironmentFault, match="Pillow") as caught:
        require_pillow()
    assert "effrec[images]" in caught.value.fix
