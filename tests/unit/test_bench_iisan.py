"""Suite `iisan`: every mode does whole steps of one shape, and is compared with full fine-tuning."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from effrec_cli.bench import iisan, iisan_fill, iisan_work, steps
from effrec_cli.bench.iisan_data import DIFFERENT, amazon_data
from effrec_cli.bench.suites import Options
from effrec_cli.evaluation.tpme import tpme
from effrec_cli.methods.content import networks
from effrec_cli.models.encoders.reader import TapReader
from effrec_cli.models.encoders.small import SmallNetwork

CPU = torch.device("cpu")
CELLS = {cell.name: cell for cell in iisan.cells(Options(CPU, quick=True))}
MODES = CELLS["modes"]
EAGER = [peer for peer in iisan.available() if "compiled" not in peer]
ON_GPU = Options(torch.device("cuda"))


def work_of(peer, **parameters):
    return iisan_work.make_work(MODES.parameters | parameters, iisan.PEERS[peer], CPU)


def test_users_have_the_shape_of_the_amazon_data():
    data = amazon_data(users=12_000, items=20_000, tokens=30, pixels=1)
    lengths = np.diff(data.sequences.offsets)
    assert (lengths.min(), np.median(lengths), lengths.max()) == (5, 6, 13)
    assert lengths.mean() == pytest.approx(6.77, abs=0.05)
    assert (data.sequences.offsets[1:] - data.train_end == 2).all()
    assert np.array_equal(np.unique(data.sequences.items), np.arange(20_000))
    tokens = np.diff(data.side["item_token_offsets"])
    assert (tokens.min(), tokens.max()) == (15, 45)
    assert tokens.mean() == pytest.approx(30, abs=0.2)
    starts = np.arange(0, 12_000 - 64, 64)
    offsets, end = data.sequences.offsets, data.train_end
    a_step = [
        len(np.unique(np.concatenate([data.sequences.items[offsets[u] : end[u]] for u in range(s, s + 64)])))
        for s in starts
    ]
    assert np.mean(a_step) == pytest.approx(276, abs=2), "as many different items as a published step has"


def test_items_have_images_of_which_some_differ():
    data = amazon_data(users=3, items=DIFFERENT + 2, tokens=2, pixels=8)
    images = data.side["item_images"]
    assert images.shape == (DIFFERENT + 2, 8, 8, 3)
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == DIFFERENT + 1


def test_a_gpus_cells_are_the_papers_shape(monkeypatch):
    modes, cache, small, large = iisan.cells(ON_GPU)
    shape = {"users": 12_000, "items": 20_000, "tokens": 30, "pixels": 224, "rank": 64, "windows": 64}
    assert shape.items() <= modes.parameters.items()
    assert set(modes.peers) >= {"iisan cached", "iisan cached compiled", "iisan uncached", "fft", "adapter"}
    assert set(modes.peers) >= {"bitfit", "frozen cached"}
    assert cache.peers == (iisan.FORWARD, iisan.FILLING)
    assert small.peers == large.peers == (iisan.CACHED, iisan.COMPILED)
    assert small.parameters | {"windows": 512} == large.parameters == modes.parameters | {"windows": 512}
    monkeypatch.setattr(iisan_work, "find_spec", lambda name: None)
    settings = iisan_work.backbone_of(iisan.cells(ON_GPU)[0].parameters, "image")
    assert (settings.name, settings.dim, settings.num_layers, settings.num_heads) == (None, 768, 12, 12)


def test_with_transformers_a_gpus_backbones_are_bert_base_and_vit_base():
    transformers = pytest.importorskip("transformers")
    parameters = iisan.cells(ON_GPU)[0].parameters
    for modality, kind in (("text", "bert"), ("image", "vit")):
        settings = iisan_work.backbone_of(parameters, modality)
        assert settings.weights == "random"
        read = transformers.AutoConfig.from_pretrained(settings.name)
        assert (read.model_type, read.hidden_size, read.num_hidden_layers) == (kind, 768, 12)


def test_lora_is_left_out_where_peft_is_not_there(monkeypatch):
    monkeypatch.setattr(iisan, "find_spec", lambda name: None)
    assert set(iisan.PEERS) - set(iisan.cells(ON_GPU)[0].peers) == {"lora"}


@pytest.mark.parametrize("peer", EAGER)
def test_each_mode_does_whole_steps_of_the_cells_shape(peer):
    work, shape = work_of(peer), MODES.parameters
    assert len(work.steps) == shape["steps"]
    assert work.epoch == shape["users"] // shape["windows"]
    batches = [batch for (batch,) in work.steps]
    assert [batch.size for batch in batches] == [shape["windows"]] * shape["steps"]
    assert len({batch.tensors["inputs"].numpy().tobytes() for batch in batches}) == len(batches)
    assert {batch.tensors["members"].shape[1] for batch in batches} <= set(range(3, iisan_work.WINDOW + 1))
    work.run()
    different = [len(np.unique(batch.host["items"])) for batch in batches]
    assert work.encoded == sum(different)
    assert sum(different) < sum(int((batch.tensors["lengths"] + 1).sum()) for batch in batches)


@pytest.mark.parametrize("peer", EAGER)
def test_figures_have_units_and_an_epoch_is_scaled_from_steps(peer, monkeypatch):
    monkeypatch.setattr(iisan_work, "median_seconds", lambda work, *_: work() or 3.0)
    figures = iisan.trial(MODES, peer, CPU)()
    assert set(figures) == {
        "epoch, from 2 steps",
        "step",
        "encodes",
        "operators",
        "peak memory",
        "trainable parameters",
    }
    assert set(figures) < set(iisan.UNITS)
    assert figures["epoch, from 2 steps"] == 8 * 3.0 / 2
    assert figures["step"] == 1500
    assert min(figures.values()) > 0


def test_a_quick_pass_is_timed_five_times(monkeypatch):
    times = iter([0.9, 0.1, 0.2, 0.3, 0.4, 1.1])
    monkeypatch.setattr(iisan_work, "median_seconds", lambda work, *_: next(times))
    work = work_of("frozen cached")
    assert work.figures()["step"] == pytest.approx(1000 * 0.3 / 2)
    assert work.figures()["step"] == pytest.approx(1000 * 1.1 / 2), "a slow one is timed once"


def test_modes_train_what_they_say():
    """With equal heads and user encoders, what trains differs by what is in or beside the backbones."""
    trained, backbones = {}, {}
    for peer in EAGER:
        work = work_of(peer)
        trained[peer] = sum(each.numel() for each in work.model.parameters() if each.requires_grad)
        readers = [each.network for each in work.model.modules() if isinstance(each, TapReader)]
        backbones[peer] = len(readers) + sum(isinstance(each, SmallNetwork) for each in work.model.modules())
    frozen = trained["frozen cached"]
    assert trained["iisan cached"] == trained["iisan uncached"] > frozen
    assert trained["fft"] > trained["adapter"] > trained["bitfit"] > frozen
    assert backbones == {peer: 0 if peer == "iisan cached" or "frozen" in peer else 2 for peer in EAGER}


def test_what_stands_between_steps_is_counted_to_the_byte():
    """Beside the weights that train and what Adam keeps of each: two numbers a value, and a count."""
    items, width = MODES.parameters["items"], 16
    beside, frozen = {}, 0
    for peer in ("iisan cached", "iisan uncached", "fft"):
        work = work_of(peer)
        work.run(1)
        beside[peer] = work.held_bytes() - sum(3 * each.nbytes + 4 for each in work.model.parameters())
        if peer != "fft":  # constants of the gates
            beside[peer] -= sum(each.nbytes for each in work.model.encoder.side.buffers())
        if peer == "iisan uncached":
            readers = [each for each in work.model.modules() if isinstance(each, TapReader)]
            frozen = sum(each.nbytes for reader in readers for each in reader.network.parameters())
    cache = 2 * items * 2 * width * 2  # of each modality two taps, in 16 bits
    said = work_of("fft").model.encoder.backbones
    texts, images = (sum(each.nbytes for each in said[name].rows.buffers()) for name in ("text", "image"))
    assert images == items * 8 * 8 * 3
    # Backbones that stand still read images from the host's memory.
    assert beside == {"iisan cached": cache, "iisan uncached": texts + frozen, "fft": texts + images}


@pytest.mark.parametrize("peer", ["iisan cached", "frozen cached"])
def test_a_cached_step_calls_as_many_operators_whatever_the_batch(peer, monkeypatch):
    config_of = iisan_work.config_of

    def unpacked(*args):
        config = config_of(*args)
        config.model.packed = False  # a CPU attends once for each width that windows have
        return config

    monkeypatch.setattr(iisan_work, "config_of", unpacked)
    found = {
        windows: iisan_work.prepared(MODES.parameters | {"windows": windows}, iisan.PEERS[peer], CPU).counts[
            "operators"
        ]
        for windows in (4, 16, 64)
    }
    assert len(set(found.values())) == 1, found
    assert 100 < found[64] < 1000


def test_what_is_compiled_is_the_side_network_and_the_user_encoder_with_its_loss():
    work, plain = work_of(iisan.COMPILED), work_of(iisan.CACHED)
    assert work.model.encoder._compiled is not None
    assert work.model.filter.compiled_with is not None
    assert (plain.model.encoder._compiled, plain.model.filter.compiled_with) == (None, None)


def test_a_step_that_does_not_fit_is_parted(monkeypatch):
    made, warm_up = [], iisan_work.Work.warm_up

    def tight(work, **options):
        made.append(len(work.steps[0]))
        if len(work.steps[0]) < 4:
            raise torch.cuda.OutOfMemoryError
        warm_up(work, **options)

    monkeypatch.setattr(iisan_work.Work, "warm_up", tight)
    figures = iisan.trial(MODES, "fft", CPU)()
    assert made == [1, 2, 4]
    assert figures["micro-batches"] == 4
    monkeypatch.setattr(steps, "MOST_MICROS", 4)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        iisan.trial(MODES, "fft", CPU)


@pytest.mark.parametrize("on_host", [False, True], ids=["few images", "as many as stay on the host"])
@pytest.mark.parametrize("peer", [iisan.FORWARD, iisan.FILLING])
def test_a_pass_reads_the_text_and_the_image_of_each_item_once(peer, on_host, monkeypatch):
    if on_host:
        monkeypatch.setattr(networks, "MOST_IMAGE_BYTES", 0)
    read, forward = {}, SmallNetwork.forward

    def watched(network, inputs, real):
        read[inputs.dim()] = read.get(inputs.dim(), 0) + len(inputs)
        return forward(network, inputs, real)

    work = iisan.trial(CELLS["cache"], peer, CPU)
    monkeypatch.setattr(SmallNetwork, "forward", watched)
    figures = work()
    assert set(figures) == {"all items"} < set(iisan.UNITS)
    assert read == {2: 48, 4: 48}
    work()
    assert read == {2: 96, 4: 96}, "nothing of an earlier turn is taken up"


def test_the_filled_cache_is_the_methods_own(monkeypatch):
    kept = []
    monkeypatch.setattr(iisan_fill, "kept_features", lambda spec, *_, **__: kept.append(spec))
    iisan_fill.filling(CELLS["cache"].parameters, CPU)()
    assert [(spec.modality, spec.taps, spec.dtype, spec.num_items) for spec in kept] == [
        ("text", (0, 1), "bf16", 48),
        ("image", (0, 1), "bf16", 48),
    ]


def test_the_forward_pass_takes_the_fastest_of_the_batches(monkeypatch):
    sizes, forward = [], iisan_fill._pass

    def watched(*args):
        sizes.append(args[-1])
        return forward(*args)

    monkeypatch.setattr(iisan_fill, "_pass", watched)
    monkeypatch.setattr(iisan_fill, "median_seconds", lambda work, *_, **__: -work.args[-1])
    run = iisan_fill.forward_pass(CELLS["cache"].parameters, CPU)
    run()
    assert sizes == [16, 16]


def sample(step, parameters, memory):
    return {"step": step, "trainable parameters": parameters, "peak memory": memory}


def test_peers_are_compared_turn_by_turn():
    samples = {
        "fft": [sample(100.0, 50.0, 80.0), sample(200.0, 50.0, 80.0)],
        "lora": [sample(50.0, 1.0, 40.0)],
        "bitfit": [sample(50.0, 2.0, 40.0), sample(60.0, 2.0, 30.0)],
        "iisan cached": [sample(5.0, 2.0, 4.0), sample(4.0, 2.0, 4.0)],
    }
    found = iisan.compared(samples)
    assert [turn["over fft"] for turn in found["iisan cached"]] == [20, 50]
    assert [turn["memory over fft"] for turn in found["iisan cached"]] == [20, 20]
    assert found["fft"][0]["over fft"] == 1
    first = tpme([100, 50, 50, 5], [50, 1, 2, 2], [80, 40, 40, 4])
    assert [found[peer][0]["TPME"] / 100 for peer in samples] == pytest.approx(first)
    second = tpme([200, 60, 4], [50, 2, 2], [80, 30, 4])
    assert [found[peer][1]["TPME"] / 100 for peer in ("fft", "bitfit", "iisan cached")] == second
    assert len(found["lora"]) == 1


def test_nothing_is_compared_with_a_turn_that_is_not_there():
    alone = {"iisan cached": [sample(5.0, 2.0, 4.0)], "fft": []}
    assert iisan.compared(alone) == alone
    assert iisan.compared({"fft": []}) == {"fft": []}


def test_filling_is_compared_with_the_forward_pass_of_its_turn():
    samples = {
        iisan.FORWARD: [{"all items": 2.0}, {"all items": 4.0}],
        iisan.FILLING: [{"all items": 3.0}, {"all items": 4.0}],
    }
    found = iisan.compared(samples)[iisan.FILLING]
    assert [turn["over a forward pass"] for turn in found] == [1.5, 1]


def test_cells_are_named_apart_and_quick_ones_are_small():
    for options in (Options(CPU), Options(CPU, quick=True), ON_GPU):
        cells = iisan.cells(options)
        assert len({cell.name for cell in cells}) == len(cells) == 4
        assert all(f"epoch, from {cell.parameters['steps']} steps" in iisan.UNITS for cell in cells)
    assert replace(MODES, peers=()).parameters["items"] < 100
