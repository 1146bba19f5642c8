"""Suite `gram`: every mode does whole steps and cycles of a shape, and encodes what it must and no more."""

import numpy as np
import pytest
import torch

from effrec_cli.bench import gram, gram_work, harness, steps
from effrec_cli.bench.drawn import popular
from effrec_cli.bench.suites import Cell, Options
from effrec_cli.errors import ConfigError

CPU = torch.device("cpu")
QUICK = Options(CPU, quick=True)
CELLS = {cell.name: cell for cell in gram.cells(QUICK)}
EACH = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def work_of(cell, peer, micros=1):
    own = gram.PEERS[peer]
    count = own.steps or cell.parameters["steps"]
    return gram_work.make_work(cell.parameters, own.settings, count, CPU, micros)


def named(work):
    """The items that each step names: all of them, a row for every micro-batch."""
    return [[batch.host["items"] for batch in micros] for micros in work.steps]


@EACH
@pytest.mark.parametrize("peer", gram.PEERS)
def test_each_mode_encodes_exactly_what_it_must(cell, peer):
    work = work_of(cell, peer)
    work.warm_up()
    work.run()
    unique = [len(np.unique(np.concatenate(micros))) for micros in named(work)]
    places = work.interactions
    union = len(np.unique(np.concatenate([items for micros in named(work) for items in micros])))
    due = {
        "e2e": places,
        "e2e_dedup": sum(unique),
        "single_step, fused": sum(unique),
        "single_step, recomputed": 2 * sum(unique),
        "frozen": 0,
    }
    # A cycle encodes what its steps touch once for the vectors and once for the gradients.
    assert work.encoded == due.get(peer, 2 * union)
    assert sum(unique) < places


@EACH
def test_steps_have_the_shape_that_the_cell_names(cell):
    shape = cell.parameters
    work = work_of(cell, "multi_step, epoch, inject_multi")
    assert len(work.steps) == shape["steps"]
    a_step = (
        shape["windows"] * shape["answers"]
        if "windows" in shape
        else shape["clicks"] * (shape["history"] + shape["candidates"])
    )
    assert work.interactions == shape["steps"] * a_step
    assert max(items.max() for micros in named(work) for items in micros) < shape["items"]
    assert work.mode.parts.task.num_items == shape["items"]


@pytest.mark.parametrize("update", ["inject_multi", "inject_single", "regress, fp32"])
@pytest.mark.parametrize("unit", ["10 steps", "epoch"])
def test_the_work_of_a_cycle_is_one_whole_cycle(unit, update):
    work = work_of(CELLS["quick tracing"], f"multi_step, {unit}, {update}")
    work.run()
    assert (work.mode.cycle.number, work.mode.cycle.steps) == (1, 0)
    work.run()
    assert work.mode.cycle.number == 2


def test_warming_up_leaves_no_cycle_open():
    work = work_of(CELLS["quick news"], "multi_step, epoch, inject_multi")
    work.warm_up()
    assert (work.mode.cycle.number, work.mode.cycle.steps, work.encoded) == (1, 0, 0)


@EACH
@pytest.mark.parametrize("peer", gram.PEERS)
def test_figures_have_units(cell, peer):
    figures = gram.trial(cell, peer, CPU)()
    assert set(figures) == {"time", "encodes", "interactions", "peak memory"}
    assert set(figures) < set(gram.UNITS)
    assert figures["time"] > 0
    assert figures["interactions"] == (16 if cell.name == "quick tracing" else 22)


def test_what_a_mode_keeps_between_steps_counts_as_memory(monkeypatch):
    monkeypatch.setattr(gram_work, "extra_bytes", lambda work, device: work() or 0.0)
    kept = {}
    for peer in ("single_step, fused", "frozen", "multi_step, epoch, inject_single"):
        work = work_of(CELLS["quick tracing"], peer)
        kept[peer] = work.figures()["peak memory"] * (1 << 20)
    table = 12 * 16 * 4
    assert list(kept.values()) == [0, table, 2 * table]


def test_a_step_that_does_not_fit_is_parted(monkeypatch):
    cell, made = CELLS["quick tracing"], []
    warm_up = gram_work.Work.warm_up

    def tight(work):
        made.append(len(work.steps[0]))
        if len(work.steps[0]) < 2:
            raise torch.cuda.OutOfMemoryError
        warm_up(work)

    monkeypatch.setattr(gram_work.Work, "warm_up", tight)
    figures = gram.trial(cell, "e2e", CPU)()
    assert made == [1, 2]
    assert (figures["micro-batches"], figures["encodes"]) == (2, 16)
    monkeypatch.setattr(steps, "MOST_MICROS", 2)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        gram.trial(cell, "e2e", CPU)


def test_peers_are_compared_turn_by_turn():
    samples = {
        "e2e": [{"time": 8.0, "peak memory": 10.0}, {"time": 4.0, "peak memory": 10.0}],
        "e2e_dedup": [{"time": 4.0, "peak memory": 5.0}],
        "frozen": [{"time": 1.0, "peak memory": 1.0}, {"time": 1.0, "peak memory": 1.0}],
    }
    frozen = gram.compared(samples)["frozen"]
    assert [turn["over e2e"] for turn in frozen] == [8, 4]
    assert frozen[0]["over e2e_dedup"] == 4
    assert "over e2e_dedup" not in frozen[1], "that peer had no such turn"
    assert frozen[0]["memory of e2e's"] == 10
    assert "over e2e" not in gram.compared({"frozen": samples["frozen"]})["frozen"][0]


def test_records_hold_the_comparison(monkeypatch):
    class Instant:
        def __init__(self, suite, cell, peer, device):
            self.peer = peer

        def prepare(self):
            pass

        def work(self):
            return {"time": {"e2e": 6.0}.get(self.peer, 2.0), "peak memory": 1.0}

        def stop(self):
            pass

    monkeypatch.setattr(harness, "Worker", Instant)
    found = list(harness.measure_cell("gram", gram, Cell("x", ("e2e", "e2e_dedup"), repeats=2), QUICK))
    assert found[1]["figures"]["over e2e"] == {
        "unit": "",
        "median": 3.0,
        "min": 3.0,
        "max": 3.0,
        "repeats": 2,
    }


def test_items_are_as_unevenly_popular_as_zipf_says():
    drawn = popular(np.random.default_rng(1), 50, 100_000)
    shares = np.sort(np.bincount(drawn, minlength=50))[::-1] / 100_000
    expected = 1 / np.arange(1, 51)
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.004)


def test_a_named_encoders_cells_stand_beside_the_built_in_ones(monkeypatch):
    own = [cell.name for cell in gram.cells(Options(CPU))]
    monkeypatch.setenv("EFFREC_ENCODER", "/somewhere/mini")
    named_ones = gram.cells(Options(CPU))
    assert [cell.name for cell in named_ones] == [f"{name}, mini" for name in own]
    settings = gram_work.config_of(named_ones[0].parameters, {}, CPU).method.encoder
    assert (settings.name, settings.max_tokens) == ("/somewhere/mini", named_ones[0].parameters["tokens"])


def test_a_named_encoder_reads_the_lines_of_a_file(tmp_path, monkeypatch):
    lines = [f"a title number {number}" for number in range(300)]
    (tmp_path / "films.txt").write_text("\n".join([*lines, "", lines[0]]) + "\n")
    monkeypatch.setenv("EFFREC_ENCODER", "/somewhere/mini")
    monkeypatch.setenv("EFFREC_TEXTS", str(tmp_path / "films.txt"))
    for cell in gram.cells(Options(CPU)):
        assert cell.name.endswith(", mini, films")
        assert cell.parameters["texts"] == "films.txt"
        titles = gram_work.data_of(cell.parameters).items.titles.tolist()
        assert len(set(titles)) == len(titles) == cell.parameters["items"]
        assert set(titles) <= set(lines)


def test_too_few_texts_are_refused(tmp_path, monkeypatch):
    (tmp_path / "films.txt").write_text("one\ntwo\none\n")
    monkeypatch.setenv("EFFREC_ENCODER", "/somewhere/mini")
    monkeypatch.setenv("EFFREC_TEXTS", str(tmp_path / "films.txt"))
    with pytest.raises(ConfigError, match="100 items, and 2 different texts") as caught:
        gram_work.data_of(gram.cells(Options(CPU))[0].parameters)
    assert caught.value.where == f"EFFREC_TEXTS={tmp_path / 'films.txt'}"


@pytest.mark.parametrize("made", [False, True])
def test_a_file_that_is_no_text_is_refused(made, tmp_path, monkeypatch):
    if made:
        (tmp_path / "films.txt").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setenv("EFFREC_ENCODER", "/somewhere/mini")
    monkeypatch.setenv("EFFREC_TEXTS", str(tmp_path / "films.txt"))
    with pytest.raises(ConfigError, match="cannot be read"):
        gram.cells(Options(CPU))


@pytest.mark.parametrize(
    ("folder", "device", "quick"), [(None, "cpu", False), ("/a/b", "cuda", False), ("/a/b", "cpu", True)]
)
def test_texts_that_nothing_would_read_are_refused(folder, device, quick, monkeypatch):
    monkeypatch.setenv("EFFREC_TEXTS", "films.txt")
    if folder:
        monkeypatch.setenv("EFFREC_ENCODER", folder)
    with pytest.raises(ConfigError, match="Nothing would read the texts"):
        gram.cells(Options(torch.device(device), quick=quick))


def test_a_gpu_has_an_encoder_of_the_size_of_bert_base(monkeypatch):
    cells = gram.cells(Options(torch.device("cuda")))
    names = [cell.name for cell in cells]
    assert names[:2] == ["knowledge tracing", "news"]
    monkeypatch.setattr(gram_work, "find_spec", lambda name: None)
    without = gram.cells(Options(torch.device("cuda")))[0].parameters
    settings = gram_work.config_of(without, {}, torch.device("cuda")).method.encoder
    assert (settings.name, settings.dim, settings.num_layers, settings.num_heads) == (None, 768, 12, 12)


def test_with_transformers_a_gpus_encoder_is_bert_base_itself():
    transformers = pytest.importorskip("transformers")
    parameters = gram.cells(Options(torch.device("cuda")))[0].parameters
    settings = gram_work.config_of(parameters, {}, torch.device("cuda")).method.encoder
    assert (settings.weights, settings.tokenizer) == ("random", "dataset")
    read = transformers.AutoConfig.from_pretrained(settings.name)
    assert (read.model_type, read.hidden_size, read.num_hidden_layers) == ("bert", 768, 12)


def test_memory_cells_differ_in_the_batch_alone():
    for device in (CPU, torch.device("cuda")):
        cells = {cell.name: cell for cell in gram.cells(Options(device))}
        small, large = cells[gram.SMALL_BATCH], cells[gram.LARGE_BATCH]
        assert large.parameters["windows"] == 8 * small.parameters["windows"]
        assert {**large.parameters, "windows": 0} == {**small.parameters, "windows": 0}
        assert small.peers == large.peers == gram.GROWING
