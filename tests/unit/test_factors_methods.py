"""Factorisations as methods, and kept for others. Numbers: papers/cadc, section 5."""

import contextlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from data_helpers import prepared
from ranking_helpers import make_data

from effrec_cli import compose, registry
from effrec_cli.errors import ConfigError, DataError, NonFiniteError
from effrec_cli.evaluation.scorer import Histories
from effrec_cli.methods.factors import fit as fitting
from effrec_cli.methods.factors import judge as judges
from effrec_cli.methods.factors.fit import fit, settled
from effrec_cli.methods.factors.kept import kept_factors
from effrec_cli.methods.factors.rows import training_cells
from effrec_cli.methods.factors.tuned import Size, tuned
from effrec_cli.models.factors.kinds import FOLDS, MAKERS
from effrec_cli.schema import EvaluationConfig
from effrec_cli.schema.factors import KINDS, LOOKED_AT, SOLVED_BY, FactorsConfig

CPU = torch.device("cpu")
WORLD = SimpleNamespace(device=CPU, rank=0, size=1)
ITERATED = [kind for kind in KINDS if kind != "rsvd"]


def engine():
    meter = SimpleNamespace(validating=contextlib.nullcontext)
    return SimpleNamespace(world=WORLD, meter=meter)


def method_of(data, *words):
    config = compose.compose(["evaluation.ks=[3,10]", *words])
    method = registry.implementation("methods", config.method.name)(config)
    method.prepare(data)
    method.build(data)
    return method


def fitted(data, *words):
    method = method_of(data, *words)
    method.fit(engine())
    return method


def grouped(shuffled=0, groups=4, users=10, items=9):
    """Rows of users who meet two thirds of their group's items, twice at times; group = raw id // 1000."""
    draw = np.random.default_rng(shuffled)
    rows = []
    for user in draw.permutation(groups * users):
        group = int(user) // users
        own = 1000 * group + draw.permutation(items)[: 2 * items // 3]
        times = draw.permutation(len(own) + 1)
        raw = 1000 * group + int(user) % users
        rows += [
            (raw, int(item), int(time), 3.0 + int(item) % 3)
            for item, time in zip([*own, own[0]], times, strict=True)
        ]
    return [rows[at] for at in draw.permutation(len(rows))]


@pytest.fixture(scope="module")
def data():
    return prepared(grouped())


def score(method, users, *lists):
    items = torch.tensor([item for each in lists for item in each], dtype=torch.int64)
    histories = Histories(items, torch.tensor([0, *np.cumsum([len(each) for each in lists])]))
    return method.scorer().score(torch.tensor(users), histories)


def test_every_kind_is_a_method_with_its_schema():
    assert set(KINDS) == set(MAKERS) == set(FOLDS) <= set(registry._BUILT_IN["methods"])
    for kind in KINDS:
        own, shared = registry.schema("methods", kind)(), FactorsConfig(kind=kind)
        size = Size(100, 50, 1000)
        assert settled(own, size) == settled(shared, size), "alone and for others the same"


@pytest.mark.parametrize("ratings", [False, True])
def test_no_row_of_validation_or_test_is_factorised(data, ratings):
    """Test 5: by intersection of keys."""
    cells = training_cells(data, CPU, ratings=ratings)
    used = set(zip(cells.rows().tolist(), cells.columns.tolist(), strict=True))
    trained = {(user, int(item)) for user in range(data.num_users) for item in data.train_items(user)}
    assert used == trained
    for part in (data.valid, data.test):
        at = part.target_start
        held = set(zip(part.users.tolist(), data.sequences.items[at].tolist(), strict=True))
        assert held
        assert not used & (held - trained)


def other_test_items(data):
    items = np.array(data.sequences.items)
    items[data.test.target_start] = (items[data.test.target_start] + 1) % data.num_items
    return replace(data, sequences=replace(data.sequences, items=items), content_hash="other")


@pytest.mark.parametrize("kind", KINDS)
def test_other_test_rows_change_no_bit(data, kind, tmp_path):
    """Test 5."""
    settings = FactorsConfig(kind=kind, dim=5, sweeps=3)
    here = kept_factors(settings, data, tmp_path, CPU, lambda line: None)
    there = kept_factors(settings, other_test_items(data), tmp_path / "other", CPU, lambda line: None)
    assert here.digest == there.digest
    assert torch.equal(here.users, there.users)
    assert torch.equal(here.items, there.items)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_belong_to_raw_ids(kind):
    """Test 13: users and items in a shuffled order; a user's group's items come first."""
    data = prepared(grouped(shuffled=3))
    words = [] if kind == "rsvd" else ["method.sweeps=20", "method.patience=null"]
    more = ["method.lr=0.3"] if kind == "bpr" else ["method.reg=0.1"] if kind == "explicit_als" else []
    method = fitted(data, f"method={kind}", "method.dim=6", *words, *more)
    scores = score(method, list(range(data.num_users)), *[[]] * data.num_users).numpy()
    if kind == "explicit_als":  # items alone decide the ratings here
        assert (data.items.ids[scores.argmax(1)] % 3 == 2).all()
        return
    own = data.users.ids[:, None] // 1000 == data.items.ids // 1000
    assert scores[own].mean() > np.quantile(scores[~own], 0.99)


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_of_one_seed_are_equal_bit_for_bit(data, kind):
    """Test 21."""
    words = [f"method={kind}", "method.dim=5"] + ([] if kind == "rsvd" else ["method.sweeps=3"])
    first, again = (fitted(data, *words) for _ in range(2))
    assert first.judge("test") == again.judge("test")
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    other = fitted(data, *words, "seed=2")
    assert not torch.equal(first.state_dict()["users"], other.state_dict()["users"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_scores_the_same(data, kind):
    words = [f"method={kind}", "method.dim=5"] + ([] if kind == "rsvd" else ["method.sweeps=2"])
    method, again = fitted(data, *words), method_of(data, *words)
    again.load_state_dict(method.state_dict())
    users, lists = [0, -1, 2], [[1, 2], [3, 4, 4], []]
    assert torch.equal(score(method, users, *lists), score(again, users, *lists))
    assert method.footprint(data).parameters == 5 * (data.num_users + data.num_items)
    assert method.footprint(data).peak_bytes > method.footprint(data).saved_bytes


def test_stored_vectors_are_used_for_users_that_training_saw_alone():
    lists = [[0, 1, 2], [2, 3], [], [4, 5, 0]]
    data = make_data(lists, [[3], [1], [2], [1]], 6)
    method = fitted(data, "method=ials", "method.dim=3", "method.sweeps=3")
    model = method.state_dict()
    whole = model["users"] @ model["items"].T
    asked = score(method, [1, 0, 3], [5], [5], [5])
    assert torch.allclose(asked, whole[[1, 0, 3]]), "whatever the history"
    offsets = torch.tensor([0, 2])
    folded = FOLDS["ials"](model, offsets, torch.tensor([4, 5])) @ model["items"].T
    found = score(method, [-1, 2, 1], [4, 5], [5, 4], [0])
    assert torch.allclose(found[:2], folded.expand(2, -1), atol=1e-6), "unknown, and without training rows"
    assert torch.allclose(found[2], whole[1])
    assert score(method, [-1], [])[0].count_nonzero() == 0


@pytest.mark.parametrize("last", [None, 2])
def test_all_users_may_be_folded_in_from_what_is_at_hand(data, last):
    words = [
        "method=ials",
        "method.dim=3",
        "method.sweeps=3",
        "method.users=fold_in",
        f"method.last={last or 'null'}",
    ]
    method = fitted(data, *words)
    model = method.state_dict()
    items = torch.tensor([4, 5, 1, 7])
    kept = items if last is None else items[-last:]
    true = FOLDS["ials"](model, torch.tensor([0, len(kept)]), kept) @ model["items"].T
    assert torch.allclose(score(method, [0, 1], items.tolist(), [2])[:1], true, atol=1e-6)


class Scripted:
    """A factorisation whose vectors count its sweeps."""

    num_sweeps_useful = None

    def __init__(self, matrix, *, dim, seed, **others):
        self.users, self.items = torch.zeros(2, dim), torch.zeros(3, dim)

    def sweep(self):
        self.users += 1

    def state(self):
        return {"users": self.users, "items": self.items}


@pytest.mark.parametrize(
    ("scores", "patience", "every", "best", "swept"),
    [
        ([1, 2, 3, 2, 2, 9], 2, 1, 3, 5),
        ([1, 2, 3, 2, 2, 9], 3, 1, 6, 6),
        ([5, 4, 3, 2, 1, 0], None, 1, 1, 6),
        ([1, 1, 1, 1, 1, 1], 2, 1, 1, 3),
        ([1, 3, 2], 1, 2, 4, 6),
        ([1, 2], 1, 4, 6, 6),
    ],
)
def test_the_best_sweep_is_kept(data, monkeypatch, scores, patience, every, best, swept):
    monkeypatch.setitem(fitting.MAKERS, "ials", Scripted)
    left = iter(scores)
    settings = FactorsConfig(dim=2, sweeps=6, patience=patience, validate_every=every)
    found = fit(settings, data, CPU, 1, lambda state: next(left))
    assert (found.sweeps, found.swept) == (best, swept)
    assert (found.state["users"] == best).all()
    assert f"{best} of 6: of {swept} done" in found.choices["sweeps"]


def test_without_a_judge_all_sweeps_are_made(data, monkeypatch):
    monkeypatch.setitem(fitting.MAKERS, "ials", Scripted)
    found = fit(FactorsConfig(dim=2, sweeps=6), data, CPU, 1, None)
    assert (found.sweeps, found.swept, found.score) == (6, 6, None)
    assert "sweeps" not in found.choices


def test_a_score_that_is_no_number_stops_the_fit(data):
    with pytest.raises(NonFiniteError, match="after sweep 1"):
        fit(FactorsConfig(dim=2, sweeps=6), data, CPU, 1, lambda state: float("nan"))


def test_few_of_many_validation_cases_are_looked_at(data, monkeypatch):
    asked = []
    monkeypatch.setattr(
        judges, "rank_cases", lambda scorer, data, cases, *rest, **more: asked.append(cases) or {"hr@3": 0.5}
    )
    for most, taken in ((7, 7), (39, 20), (40, 40), (100, 40)):
        monkeypatch.setattr(judges, "MOST_CASES", most)
        judge = judges.judge_of("ials", data, EvaluationConfig(), "hr@3", WORLD)
        assert judge({"items": torch.zeros(3, 2)}) == 0.5
        assert len(asked[-1]) <= most
        assert len(asked[-1]) == taken
        assert set(asked[-1].users) <= set(data.valid.users)
    none = replace(data, valid=data.valid[:0])
    assert judges.judge_of("ials", none, EvaluationConfig(), "hr@3", WORLD) is None


def test_what_was_left_open_is_told(data):
    method = fitted(data, "method=ials", "method.dim=3", "method.sweeps=2")
    told = method.choices()
    assert told["method.reg"] == "0.01, by the data's size"
    assert told["method.solver"] == "cg on cpu"
    assert told["method.sweeps"].endswith("of 2 done, validation was best there")
    assert "method.dim" not in told
    given = fitted(
        data, "method=ials", "method.sweeps=1", "method.reg=0.5", "method.solver=cholesky"
    ).choices()
    assert not {"method.reg", "method.solver"} & given.keys()


PUBLISHED = {
    "ML-1M": (Size(6_040, 3_706, 994_000), 0.007, 0.3),
    "ML-20M": (Size(136_677, 20_108, 9_990_000), 0.003, 0.1),
    "MSD": (Size(571_355, 41_140, 33_600_000), 0.002, 0.02),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_defaults_are_near_what_was_published(name):
    """Within a factor of two (papers/cadc, section 1.3)."""
    size, reg, weight = PUBLISHED[name]
    found = tuned("ials", size)[0]
    assert 1 / 2 < found["unobserved_weight"] / weight < 2
    assert 1 / 2 < found["reg"] / reg < 2


def test_what_is_left_open_has_a_value_for_any_size():
    for kind in KINDS:
        for size in (Size(0, 0, 0), Size(1, 1, 1), Size(10, 10, 1000)):
            given = FactorsConfig(kind=kind, chunk_mib=1.0, cg_steps=2)
            assert None not in settled(given, size)[0].values()


def test_ratings_are_needed_for_a_factorisation_of_ratings():
    data = make_data([[0, 1], [1]], [[2], [0]], 3)
    with pytest.raises(DataError, match="has none") as caught:
        fitted(data, "method=explicit_als")
    assert "method=ials" in caught.value.fix


def test_data_without_training_rows_are_refused():
    with pytest.raises(DataError, match="nothing to train on"):
        fitted(make_data([[], []], [[2], [0]], 3), "method=ials")


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["method=explicit_als", "method.dim=2"], "method.dim"),
        (["method=bpr", "method.dim=1"], "method.dim"),
        (["method=ials", "method.last=3"], "method.last"),
        (["method=ials", "method.block=16"], "method.block"),
        (["method=explicit_als", "method.solver=cholesky", "method.cg_steps=3"], "method.cg_steps"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(words, where):
    with pytest.raises(ConfigError) as caught:
        compose.compose(words)
    assert where in str(caught.value)


def test_kept_vectors_are_found_again(data, tmp_path, monkeypatch):
    said = []
    settings = FactorsConfig(dim=4, sweeps=3)
    first = kept_factors(settings, data, tmp_path, CPU, said.append)
    assert not first.found
    assert first.seconds > 0
    assert len(said) == 2
    monkeypatch.setattr("effrec_cli.methods.factors.kept.fit", None)
    again = kept_factors(settings, data, tmp_path, CPU, said.append)
    assert again.found
    assert (again.seconds, again.digest, again.choices) == (first.seconds, first.digest, first.choices)
    assert len(said) == 2
    assert torch.equal(first.users, again.users)
    assert torch.equal(first.items, again.items)
    offsets, items = torch.tensor([0, 2]), torch.tensor([1, 4])
    assert torch.equal(again.fold_in(offsets, items), FOLDS["ials"](first.state, offsets, items))


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"dim": 5}},
        {"settings": {"reg": 0.02}},
        {"settings": {"kind": "rsvd"}},
        {"seed": 2},
        {"monitor": "ndcg@3"},
    ],
)
def test_other_settings_are_other_vectors(data, tmp_path, change):
    base = {"dim": 4, "sweeps": 2}
    told = {**base, **change.pop("settings", {})}
    one = kept_factors(FactorsConfig(**base), data, tmp_path, CPU, lambda line: None)
    two = kept_factors(FactorsConfig(**told), data, tmp_path, CPU, lambda line: None, **change)
    assert one.digest != two.digest


def test_what_decides_nothing_makes_no_other_vectors(data, tmp_path):
    one = kept_factors(FactorsConfig(dim=4, sweeps=2), data, tmp_path, CPU, lambda line: None)
    same = FactorsConfig(dim=4, sweeps=2, chunk_mib=0.1, lr=0.7)
    assert kept_factors(same, data, tmp_path, CPU, lambda line: None).found
    renamed = replace(data, name="other", content_hash="other")
    assert (
        kept_factors(FactorsConfig(dim=4, sweeps=2), renamed, tmp_path, CPU, lambda line: None).digest
        == one.digest
    )
    fewer = replace(data, train_end=np.maximum(data.train_end - 1, data.train_start))
    assert (
        kept_factors(FactorsConfig(dim=4, sweeps=2), fewer, tmp_path, CPU, lambda line: None).digest
        != one.digest
    )


@pytest.mark.parametrize("harm", ["flip", "cut", "manifest"])
def test_damaged_vectors_are_fitted_anew(data, tmp_path, harm):
    settings = FactorsConfig(dim=4, sweeps=2)
    first = kept_factors(settings, data, tmp_path, CPU, lambda line: None)
    path = tmp_path / "factors" / first.digest / ("manifest.json" if harm == "manifest" else "users.npy")
    content = bytearray(path.read_bytes())
    content[-3] ^= 0xFF
    path.write_bytes(bytes(content) if harm == "flip" else content[:-5])
    again = kept_factors(settings, data, tmp_path, CPU, lambda line: None)
    assert not again.found
    assert torch.equal(again.users, first.users)


def test_a_run_reports_its_sweeps(tmp_path):
    from effrec_cli.app import main

    small = ["dataset.num_users=80", "dataset.num_items=60", "dataset.side=[]", "run.device=cpu"]
    words = [f"data_root={tmp_path / 'data'}", f"run.dir={tmp_path / 'run'}", *small]
    assert main(["train", *words, "method=ials", "method.dim=8"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "of 16" in result["choices"]["method.sweeps"]
    assert result["cost"]["parameters"] is not None


def test_what_is_refused_as_unread_is_what_a_kind_is_not_made_with():
    for name, (_, kinds) in LOOKED_AT.items():
        several = name in fitting._OF_THE_FIT
        readers = [kind for kind in KINDS if (kind != "rsvd" if several else name in fitting._READS[kind])]
        assert sorted(kinds) == sorted(readers), name
    told = {*LOOKED_AT, *SOLVED_BY}
    assert told == {*fitting._OF_THE_FIT, *(name for names in fitting._READS.values() for name in names)}
