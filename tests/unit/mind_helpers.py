"""MIND folders in the published layout, small ones with known rows."""

import zipfile

from effrec_cli.schema.dataset_base import FilterConfig
from effrec_cli.schema.dataset_mind import MindConfig

TRAIN_NEWS = [
    'N10\tsports\tsoccer\tThe "final" is on\tTwo teams meet.\thttps://a\t[]\t[]',
    "N2\tnews\tworld\tÉté en ville\t\thttps://b\t[]\t[]",
    "N3\tnews\tworld\tRain\tMuch of it, they say.\thttps://c\t[]\t[]",
]
DEV_NEWS = [
    TRAIN_NEWS[1],
    "N1\tfood\trecipes\tA soup\tHot.\thttps://d\t[]\t[]",
    "N4\tfood\trecipes\tA salad\tCold.\thttps://e\t[]\t[]",
]
TRAIN = [
    "1\tU7\t11/11/2019 9:05:58 AM\tN2 N10\tN3-0 N10-0 N2-1",
    "2\tU7\t11/12/2019 12:00:01 PM\tN2 N10\tN3-1 N2-0",
    "3\tU5\t11/13/2019 12:00:01 AM\t\tN10-1 N3-0 N2-1 N10-0",
    "4\tU7\t11/10/2019 1:00:00 PM\tN2 N10\tN3-0 N10-1",
]
DEV = [
    "1\tU7\t11/15/2019 8:00:00 AM\tN2 N10\tN1-1 N4-0",
    "2\tU9\t11/15/2019 7:59:59 AM\tN2 N4 N2\tN4-0 N1-1 N2-0",
]


def write(folder, *, train=TRAIN, dev=DEV, train_news=TRAIN_NEWS, dev_news=DEV_NEWS, ends=("train", "dev")):
    """Writes both parts as folders and returns the folder that holds them."""
    for end, news, rows in zip(ends, (train_news, dev_news), (train, dev), strict=True):
        home = folder / f"MINDsmall_{end}"
        home.mkdir(parents=True)
        (home / "news.tsv").write_text("".join(f"{row}\n" for row in news), encoding="utf-8")
        (home / "behaviors.tsv").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        (home / "entity_embedding.vec").write_text("unused\n")
    return folder


def zipped(folder, target):
    """Packs each part of `folder` as its publisher does, and returns `target`."""
    target.mkdir()
    for home in folder.iterdir():
        with zipfile.ZipFile(target / f"{home.name}.zip", "w") as archive:
            for file in home.iterdir():
                archive.write(file, file.name)
    return target


def settings(path=None, name="mind-tiny", **others):
    """Returns a dataset's settings that keep every user."""
    path = None if path is None else str(path)
    filters = FilterConfig(min_user_count=1)
    return MindConfig(name=name, family="mind", path=path, filter=filters, **others)
