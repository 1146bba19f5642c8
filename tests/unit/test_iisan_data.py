"""IISAN's published files and protocol: the counts of papers/iisan section 5.2, and its popularity floor.

The files are not ours to ship. Where they are at hand, lay them as their repository does under
`$EFFREC_TEST_DATA/iisan`; without them the same code runs on a made file against a plain loop.
"""

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from data_helpers import as_cases, as_training, quiet

from effrec_cli.compose import compose
from effrec_cli.data.load import load
from effrec_cli.evaluation.ranking import rank_cases
from effrec_cli.methods.pop import Popularity
from effrec_cli.schema import Config, EvaluationConfig
from effrec_cli.schema.method_pop import PopularityConfig
from effrec_cli.schema.model_none import NoModelConfig

DATA = Path(os.environ.get("EFFREC_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
PROTOCOL = ("dataset=sequences", "dataset.filter.min_user_count=5", "dataset.filter.max_user_count=13")


def published(root, users, items=None):
    """Prepares files by the published protocol."""
    overrides = [*PROTOCOL, f"dataset.path={users}", *([f"dataset.items_path={items}"] if items else [])]
    return load(compose(overrides).dataset, root, quiet)


def statistics(data):
    """Returns the counts of the table of section 5.2."""
    trained = data.train_counts() > 0
    sizes = data.train_end - data.sequences.offsets[:-1]
    return {
        "users": data.num_users,
        "items": data.num_items,
        "interactions": len(data.sequences.items),
        "before": data.stats["rows_read"],
        "training": data.num_train,
        "training items": int(trained.sum()),
        "training targets": int((sizes - 1).sum()),
        "cold": share(data, data.test, lambda history, target: not trained[target]),
        "missed": share(data, data.test, lambda history, target: target in history),
        "missed in validation": share(data, data.valid, lambda history, target: target in history),
    }


def share(data, part, holds):
    """Returns the percentage of cases that `holds` says yes to."""
    items = data.sequences.items
    cases = zip(part.history_start, part.history_end, part.target_start, strict=True)
    return round(100 * float(np.mean([holds(items[a:b], items[t]) for a, b, t in cases])), 2)


def floor(data):
    """Returns what popularity in training comes to, the history of a case left out."""
    method = Popularity(Config(method=PopularityConfig(), model=NoModelConfig()))
    method.prepare(data)
    method.build(data)
    method.fit(SimpleNamespace(world=SimpleNamespace(device=torch.device("cpu"))))
    settings = EvaluationConfig(ks=[10], metrics=["hr", "ndcg"], seen="exclude")
    found = rank_cases(method.scorer(), data, data.test, settings)
    return found["hr@10"], found["ndcg@10"]


PUBLISHED = {
    "Scientific": (
        "am_Industrial_and_Scientific_users.tsv",
        "Industrial_and_Scientific_items.tsv",
        (12_076, 20_314, 81_711, 85_211, 57_559, 16_306, 45_483, 20.23, 5.14, 5.99),
        (1.52, 0.95),
    ),
    "Instrument": (
        "am_Musical_Instruments_users_10K.tsv",
        "Musical_Instruments_items.tsv",
        (10_000, 19_246, 75_022, 83_828, 55_022, 15_872, 45_022, 20.12, 4.06, 4.21),
        (4.87, 3.29),
    ),
    "Office": (
        "am_Office_Products_users_10K.tsv",
        None,
        (10_000, 22_785, 71_276, 77_738, 51_276, 18_271, 41_276, 27.94, 6.54, 7.84),
        (1.47, 0.63),
    ),
}


@pytest.fixture(scope="module", params=PUBLISHED)
def real(request, tmp_path_factory):
    users, items, counts, popular = PUBLISHED[request.param]
    folder = DATA / "iisan" / request.param
    if not (folder / users).is_file():
        pytest.skip(f"{folder / users} is not here")
    listed = folder / items if items else None
    return published(tmp_path_factory.mktemp("root"), folder / users, listed), counts, popular


def test_the_counts_of_the_published_files(real):
    data, counts, _ = real
    assert tuple(statistics(data).values()) == counts


def test_the_popularity_floor_of_the_published_files(real):
    data, _, (hits, gains) = real
    found = floor(data)
    # Ties are broken in another way here than there, and the sheet rounds.
    assert 100 * found[0] == pytest.approx(hits, abs=0.03)
    assert 100 * found[1] == pytest.approx(gains, abs=0.03)


@pytest.fixture
def made(tmp_path):
    """A file in the published form: users, and their items in order, with repeats."""
    draw = np.random.default_rng(5)
    users = {
        f"u{user:03}": [f"i{min(int(item), 59):02}" for item in draw.zipf(1.4, draw.integers(5, 25))]
        for user in range(120)
    }
    path = tmp_path / "users.tsv"
    path.write_text("".join(f"{user}\t{' '.join(items)}\n" for user, items in users.items()))
    return published(tmp_path / "root", path), users


def test_a_user_of_fifteen_and_a_user_of_five_are_split_as_published(tmp_path):
    path = tmp_path / "users.tsv"
    long, short = [f"i{n:02}" for n in range(1, 16)], [f"i{n:02}" for n in range(1, 6)]
    path.write_text(f"long\t{' '.join(long)}\nshort\t{' '.join(short)}\nfew\ti01 i02 i03 i04\n")
    data = published(tmp_path / "root", path)
    assert as_training(data) == {"long": long[2:13], "short": short[:3]}
    assert as_cases(data, data.valid) == {"long": (long[2:13], [long[13]]), "short": (short[:3], [short[3]])}
    assert as_cases(data, data.test) == {"long": (long[2:14], [long[14]]), "short": (short[:4], [short[4]])}


def test_the_counts_of_a_made_file_are_those_of_a_plain_loop(made):
    data, users = made
    kept = [items[-13:] for items in users.values()]
    training = [item for items in kept for item in items[:-2]]
    percent = 100 / len(kept)
    expected = {
        "users": len(kept),
        "items": len({item for items in kept for item in items}),
        "interactions": sum(map(len, kept)),
        "before": sum(map(len, users.values())),
        "training": len(training),
        "training items": len(set(training)),
        "training targets": sum(len(items) - 3 for items in kept),
        "cold": round(percent * sum(items[-1] not in training for items in kept), 2),
        "missed": round(percent * sum(items[-1] in items[:-1] for items in kept), 2),
        "missed in validation": round(percent * sum(items[-2] in items[:-2] for items in kept), 2),
    }
    assert statistics(data) == expected
    assert expected["missed"] > 0, "or the test would not see them"


def test_the_popularity_floor_of_a_made_file_is_that_of_a_plain_loop(made):
    data, users = made
    kept = [items[-13:] for items in users.values()]
    counts = Counter(item for items in kept for item in items[:-2])
    catalogue = {item for items in kept for item in items}
    least, most = np.zeros(2), np.zeros(2)
    for *history, target in kept:
        if target in history:
            continue
        others = [counts[item] for item in catalogue - set(history) - {target}]
        above = sum(count > counts[target] for count in others)
        tied = sum(count == counts[target] for count in others)
        for total, rank in ((most, above + 1), (least, above + tied + 1)):
            total += (rank <= 10) * np.array([1, 1 / np.log2(rank + 1)])
    found = np.array(floor(data))
    assert (least / len(kept) - 1e-9 <= found).all()
    assert (found <= most / len(kept) + 1e-9).all()
    assert 0 < found[0] < 1
