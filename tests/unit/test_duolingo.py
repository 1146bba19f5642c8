"""Duolingo's published layout, in small: what is an answer, right or wrong, and how a bad line is told."""

import tarfile

import pytest
from data_helpers import quiet

from effrec_cli.data.answers import answers_of
from effrec_cli.data.duolingo import DuolingoSource
from effrec_cli.data.load import load
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_base import FilterConfig, PartsConfig, SplitConfig
from effrec_cli.schema.dataset_duolingo import DuolingoConfig

NAME = "es_en.slam.20190204"


def exercise(number, user, days, prompt, labels, *, keyed=False):
    """An exercise as it is published, and its lines of a key."""
    lines = [f"# prompt:{prompt}"] if prompt else []
    kind = "reverse_translate" if prompt else "listen"
    lines.append(
        f"# user:{user}  countries:CO|MX  days:{days}  client:web  session:lesson  format:{kind}  time:9"
    )
    key = []
    for token, label in enumerate(labels, 1):
        name = f"DRihrVm{number:01}{token:02}"
        columns = [name, "niño", "NOUN", "Gender=Masc|Number=Sing|fPOS=NOUN++", "ROOT", "0"]
        lines.append("  ".join(columns if keyed else [*columns, str(label)]))
        key.append(f"{name} {label}")
    return "\n".join(lines) + "\n", "\n".join(key) + "\n"


TRAIN = [
    exercise(1, "XEinXf5+", 0.003, "I am a Boy.", [0, 0, 0]),
    exercise(2, "XEinXf5+", 0.003, None, [1, 1]),
    exercise(3, "XEinXf5+", 1.5, "We eat bread", [0, 1]),
    exercise(4, "/aB=", 0, "i am a boy.", [1, 0, 0]),
]
DEV = [exercise(5, "XEinXf5+", 2.25, "I am a boy.", [1, 0], keyed=True)]
TEST = [
    exercise(6, "XEinXf5+", 3, "New prompt", [0], keyed=True),
    exercise(7, "/aB=", 4, "we eat bread", [0, 0], keyed=True),
]


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "data_es_en"
    home.mkdir()
    for part, exercises in (("train", TRAIN), ("dev", DEV), ("test", TEST)):
        (home / f"{NAME}.{part}").write_text("\n".join(text for text, _ in exercises), encoding="utf-8")
        if part != "train":
            (home / f"{NAME}.{part}.key").write_text("\n".join(key for _, key in exercises))
    return home


def config_of(path=None, **keywords):
    return DuolingoConfig(
        name="duolingo-es-en",
        family="duolingo",
        filter=FilterConfig(min_user_count=1),
        split=SplitConfig(kind="files"),
        path=None if path is None else str(path),
        **keywords,
    )


def loaded(folder, tmp_path, **keywords):
    return load(config_of(folder, **keywords), tmp_path / "root", quiet)


def as_rows(data):
    """The answers as (user, prompt, right, time, part)."""
    side = data.side
    users, prompts = data.users.ids[side["answers_user"]], data.items.titles[side["answers_item"]]
    columns = (users, prompts, side["answers_correct"], side["answers_time"], side["answers_part"])
    return list(zip(*(column.tolist() for column in columns), strict=True))


EXPECTED = [
    ("/aB=", "i am a boy.", 0, 0, 0),
    ("/aB=", "we eat bread", 1, 345600, 2),
    ("XEinXf5+", "i am a boy.", 1, 259, 0),
    ("XEinXf5+", "we eat bread", 0, 129600, 0),
    ("XEinXf5+", "i am a boy.", 0, 194400, 1),
    ("XEinXf5+", "new prompt", 1, 259200, 2),
]


def test_an_exercise_with_a_prompt_is_an_answer_right_without_a_mistake(folder, tmp_path):
    data = loaded(folder, tmp_path)
    assert as_rows(data) == EXPECTED
    assert data.stats["rows_read"] == 7
    assert data.stats["dropped"]["without_prompt"] == 1
    assert data.stats["rows_kept"] == 6


def test_the_parts_are_ready_made(folder, tmp_path):
    answers = answers_of(loaded(folder, tmp_path), PartsConfig(cold_item_share=0))
    assert answers.protocol["parts"] == "ready-made"
    assert answers.part.tolist() == [row[-1] for row in EXPECTED]


def test_an_archive_is_imported_once_by_its_path_or_by_the_verb(folder, tmp_path):
    archive = tmp_path / "data_es_en.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, "data_es_en")
    said = []
    for _ in range(2):
        data = load(config_of(archive), tmp_path / "root", said.append)
        assert as_rows(data) == EXPECTED
    assert sum("Imported" in line for line in said) == 1
    DuolingoSource(config_of(), tmp_path / "other").import_from(archive, quiet)
    assert as_rows(load(config_of(), tmp_path / "other", quiet)) == EXPECTED


def test_without_data_the_error_says_what_to_get_and_where_to_put_it(tmp_path):
    with pytest.raises(DataError) as caught:
        loaded(None, tmp_path)
    text = str(caught.value)
    assert "data_es_en.tar.gz from https://doi.org/10.7910/DVN/8SWHNO" in text
    assert "effrec data import duolingo-es-en FILE" in text
    assert "dataset.path=FILE" in text


def test_a_path_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder") as caught:
        loaded(tmp_path / "nowhere", tmp_path)
    assert "dataset.path=" in str(caught.value)


def test_missing_files_are_named(folder, tmp_path):
    (folder / f"{NAME}.dev.key").unlink()
    with pytest.raises(DataError, match=r"es_en.slam.20190204.dev.key not found"):
        loaded(folder, tmp_path)
    other = DuolingoSource(config_of(files="fr_en.slam.20190204"), tmp_path / "root")
    with pytest.raises(DataError, match="looks like duolingo-es-en"):
        other.import_from(folder, quiet)


def change(folder, part, old, new):
    path = folder / f"{NAME}.{part}"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("part", "old", "new", "what", "where"),
    [
        ("train", "ROOT  0  1", "ROOT  0  2", "label of a token", "train, line 8, value '2'"),
        ("train", "  ROOT  0  0", "  ROOT  0", "6 columns instead of 7", "train, line 3,"),
        ("train", "days:1.5", "days:soon", "'days' is not a number", "train, line 12, value 'soon'"),
        ("train", "days:1.5", "day:1.5", "does not say its 'days'", "train, line 12,"),
        ("train", "# user:/aB=  ", "# ", "does not say its 'user'", "train, line 17,"),
        ("dev", "DRihrVm502", "unknown", "key does not have this token", "dev, line 4, value 'unknown'"),
        ("dev", "ROOT  0", "ROOT  0  1", "7 columns instead of 6", "dev, line 3,"),
        ("test.key", "DRihrVm601 0", "DRihrVm601 x", "not a token's id and 0 or 1", "test.key, line 1,"),
    ],
)
def test_a_bad_line_is_told_with_file_line_and_value(folder, tmp_path, part, old, new, what, where):
    change(folder, part, old, new)
    with pytest.raises(DataError, match=what) as caught:
        loaded(folder, tmp_path)
    assert f"{NAME}.{where}" in str(caught.value)
    if "key" in part:
        return
    data = loaded(folder, tmp_path, bad_rows="drop")
    assert data.stats["dropped"]["bad_rows"] == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [("", "has no exercise"), ("# prompt:A\n\n", "lacks its line"), ("# user:a  days:1\n", "no tokens")],
)
def test_a_file_cut_short_is_an_error(folder, tmp_path, text, what):
    (folder / f"{NAME}.train").write_text(text)
    with pytest.raises(DataError, match=what):
        loaded(folder, tmp_path)


def replace_bytes(folder, part, old, new):
    path = folder / f"{NAME}.{part}"
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def test_a_key_that_is_no_text_is_a_data_error(folder, tmp_path):
    replace_bytes(folder, "dev.key", b"DRihrVm501 1", b"\xe9\xff\x00")
    with pytest.raises(DataError, match="not a token's id and 0 or 1") as caught:
        loaded(folder, tmp_path)
    assert "dev.key, line 1," in str(caught.value)


def test_a_stray_byte_in_a_key_is_a_token_the_key_does_not_have(folder, tmp_path):
    replace_bytes(folder, "dev.key", b"DRihrVm501", b"\xe9RihrVm501")
    with pytest.raises(DataError, match="key does not have this token"):
        loaded(folder, tmp_path)


def test_a_user_whose_id_is_not_utf_8_is_malformed(folder, tmp_path):
    replace_bytes(folder, "train", b"user:/aB=", b"user:/\xe9B=")
    with pytest.raises(DataError, match="user's id is not valid UTF-8") as caught:
        loaded(folder, tmp_path)
    assert "train, line 17," in str(caught.value)
