"""Images made by Pillow in every kind that decoders meet, sound and broken."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from effrec_cli.schema.dataset_base import FilterConfig
from effrec_cli.schema.dataset_table import TableConfig

RED = (255, 0, 0)


def picture(width=12, height=9, colour=RED, mode="RGB"):
    """Returns one plain image."""
    return Image.new("RGB", (width, height), colour).convert(mode)


def noise(width=40, height=30, seed=0):
    """Returns an image of random colours, which no format makes much smaller."""
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image, kind="PNG", **options):
    """Returns an image's file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def header_of(width, height):
    """Returns the beginning of a PNG that says how large it is, and has not one pixel."""
    whole = bytearray(encoded(picture(1, 1)))
    whole[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return fixed_checksum(bytes(whole))


def fixed_checksum(whole):
    """Returns a PNG whose header's checksum is right again."""
    import zlib

    return whole[:29] + zlib.crc32(whole[12:29]).to_bytes(4, "big") + whole[33:]


def sorts():
    """Returns sound images of every sort by name, all of them red all over."""
    palette = picture(mode="P")
    clear = picture().convert("RGBA")
    frames = [picture(colour=colour) for colour in (RED, (0, 255, 0))]
    return {
        "jpeg": encoded(picture(), "JPEG", quality=95, subsampling=0),
        "progressive": encoded(picture(), "JPEG", quality=95, progressive=True),
        "large jpeg": encoded(picture(900, 700), "JPEG", quality=95),
        "cmyk": encoded(picture(mode="CMYK"), "JPEG", quality=95),
        "png": encoded(picture()),
        "palette": encoded(palette),
        "palette and alpha": encoded(palette, transparency=255),
        "rgba": encoded(clear),
        "webp": encoded(picture(), "WEBP", lossless=True),
        "gif": encoded(palette, "GIF"),
        "bmp": encoded(picture(), "BMP"),
        "animated gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated png": encoded(frames[0], save_all=True, append_images=frames[1:]),
        "animated webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
        "a pixel": encoded(picture(1, 1)),
        "a line": encoded(picture(3000, 1)),
    }


def broken():
    """Returns what is no image that can be used, by name, with its kind."""
    jpeg, png, webp = (encoded(noise(), kind) for kind in ("JPEG", "PNG", "WEBP"))
    scrambled = bytearray(png)
    scrambled[60:90] = bytes(30)
    return {
        "empty": (b"", "damaged"),
        "text": (b"<html>404 not found</html>", "damaged"),
        "cut jpeg": (jpeg[: len(jpeg) // 2], "damaged"),
        "cut png": (png[: len(png) // 2], "damaged"),
        "cut webp": (webp[: len(webp) // 2], "damaged"),
        "scrambled png": (bytes(scrambled), "damaged"),
        "header alone": (jpeg[:20], "damaged"),
        "tiff": (encoded(picture(), "TIFF"), "damaged"),
        "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "damaged"),
        "bomb": (header_of(60_000, 60_000), "too_large"),
        "bomb below Pillow's own bound": (header_of(8_000, 8_000), "too_large"),
    }


def folder_of(path, images):
    """Writes files by name, which may have folders in it, and returns the folder."""
    for name, data in images.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def tar_of(path, images, mode="w"):
    """Writes a tar of files by name and returns its path."""
    with tarfile.open(path, mode) as file:
        for name, data in images.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def parquet_of(path, ids, images, key="item", column="image", kind=None):
    """Writes a parquet of ids and images and returns its path."""
    pq.write_table(pa.table({key: ids, column: pa.array(images, kind or pa.binary())}), path)
    return path


def log(tmp_path, items, users=3):
    """Writes a csv in which each user meets all items, and returns its path."""
    path = tmp_path / "log.csv"
    path.write_text("user,item\n" + "".join(f"{user},{item}\n" for user in range(users) for item in items))
    return path


def table(tmp_path, items, images, **keywords):
    """Returns the settings of a table of these items with images."""
    filters = keywords.pop("filter", FilterConfig(min_user_count=1))
    return TableConfig(
        name="t",
        family="table",
        path=str(log(tmp_path, items)),
        images=None if images is None else str(images),
        filter=filters,
        **{"image_size": 8, **keywords},
    )


def colours(data):
    """Returns the colour of the first pixel of each item, by raw id."""
    pixels = data.side["item_images"][:, 0, 0].tolist()
    return dict(zip(data.items.ids.tolist(), map(tuple, pixels), strict=True))
