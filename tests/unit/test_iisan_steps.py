"""A step of method iisan: the published loss, items once, few operators, every rate where it belongs."""

from dataclasses import replace

import pytest
import torch
from iisan_helpers import DRY, LIVE, MODES, Course, built, relative, whole_batch
from test_in_batch import Counter, by_place, windows_of

from effrec_cli.data.batches import Share
from effrec_cli.methods.content.items import ItemBatches
from effrec_cli.methods.content.modes import PerOccurrence


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("iisan")


def loss_and_gradients(method, loss):
    """Returns a loss and the gradients of all that trains, as one vector."""
    trains = [each for each in method.model.parameters() if each.requires_grad]
    found = torch.autograd.grad(loss, trains, allow_unused=True, materialize_grads=True)
    return loss.detach(), torch.cat([each.flatten() for each in found])


@pytest.mark.parametrize("words", [[], ["method.next_item.window=slide"]], ids=str)
def test_items_once_are_the_grid_of_all_places(root, words):
    """Every place of every window encoded for itself, and the loss by loops as section 1.8 writes it."""
    method = built(root, *words, dtype=torch.float64)
    method.model.train()
    once = whole_batch(method)
    loss, gradients = loss_and_gradients(method, method.loss(once))

    each = ItemBatches(method.content.batches(), method.content.item_tensors, unique=False)
    grid = each.batch(0, 0, Share(), 0)
    assert len(grid.host["items"]) > len(once.host["items"])
    by_places = PerOccurrence(method.mode.parts).forward(grid, method.autocast)
    for found, true in zip(loss_and_gradients(method, by_places), (loss, gradients), strict=True):
        assert relative(found, true) < 1e-10

    rows = method.content.batches().batch(0, 0, Share(), 0)
    vectors = method.encoder(torch.arange(40), 1)
    tensors = rows.tensors
    states = method.filter(vectors, tensors["inputs"].clamp(min=0), tensors["lengths"], tensors["valid"])
    counts = torch.from_numpy(method.data.train_counts()).double()
    log_p = (counts.clamp(min=1) / counts.sum()).log()
    looped = by_place(states, vectors, windows_of(rows), log_p, 1.0)
    for found, true in zip(loss_and_gradients(method, looped), (loss, gradients), strict=True):
        assert relative(found, true) < 1e-6, "shares are kept in float32"


def test_only_the_items_of_the_step_are_encoded(root, monkeypatch):
    method = built(root, "method.batch_size=4")
    seen = []
    forward = type(method.encoder).forward
    monkeypatch.setattr(
        type(method.encoder),
        "forward",
        lambda self, items, width: seen.append(items) or forward(self, items, width),
    )
    batch = whole_batch(method)
    method.loss(batch)
    (items,) = seen
    assert len(items) == len(items.unique()) == len(batch.tensors["candidates"]) < 40


def operators(method):
    """Returns how many operators a training step takes, forward, backward and updates."""
    course = Course(method)
    course.step()  # optimizers make their state
    with Counter() as counter:
        course.step(number=1)
    return counter.count


@pytest.mark.parametrize("mode", ["iisan", "frozen"])
def test_as_many_operators_however_many_users_a_step_has(root, mode):
    sizes = [f"method.batch_size={size}" for size in (3, 10, 29)]
    found = {operators(built(root, size, "model.packed=false", mode=mode)) for size in sizes}
    assert len(found) == 1
    buckets = [operators(built(root, size, mode=mode)) for size in sizes]
    assert max(buckets) < 1.1 * min(buckets), "windows of a length together, of few lengths"


def test_layers_and_not_items_decide_how_many_operators(root):
    """So that the test above could see it."""
    words = ["method.text.num_layers=6", "method.image.num_layers=6"]
    assert operators(built(root, *words)) > operators(built(root))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("micros", [2, 3])
def test_micro_batches_add_up_to_the_step(root, mode, micros):
    courses = [Course(built(root, *DRY, mode=mode, dtype=torch.float64)) for _ in range(2)]
    losses = [
        [course.step(number, count) for number in range(2)]
        for course, count in zip(courses, (1, micros), strict=True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-7)
    for whole, parts in zip(courses[0].gradients, courses[1].gradients, strict=True):
        assert whole.keys() == parts.keys()
        for name in whole:
            assert torch.allclose(parts[name], whole[name], rtol=1e-6, atol=1e-10), name


RATES = ["optimizer.lr=0.5", "method.rates.side=0.1", "method.rates.text=0.2", "method.rates.image=0.3"]
# The first part of a name below the encoder that fits decides.
OF_MODE = {
    "iisan": [("encoder.side.heads.", 0.5), ("encoder.side.", 0.1)],
    "fft": [("encoder.head.", 0.5), ("encoder.backbones.text.", 0.2), ("encoder.backbones.image.", 0.3)],
    "adapter": [("encoder.head.", 0.5), ("encoder.backbones.", 0.1)],
    "lora": [("encoder.head.", 0.5), ("encoder.backbones.", 0.1)],
    "bitfit": [("encoder.head.", 0.5), ("encoder.backbones.text.", 0.2), ("encoder.backbones.image.", 0.3)],
    "frozen": [("encoder.head.", 0.5)],
}


@pytest.mark.parametrize("mode", MODES)
def test_every_rate_reaches_what_it_is_for_and_nothing_is_left_out(root, mode):
    method = built(root, *RATES, mode=mode)
    groups = [group for each in method.optimizers(method.model) for group in each.param_groups]
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(rates), "none twice"
    trains = {name: each for name, each in method.model.named_parameters() if each.requires_grad}
    assert rates.keys() == {id(each) for each in trains.values()}
    for name, each in trains.items():
        own = [rate for start, rate in [*OF_MODE[mode], ("filter.", 0.5)] if name.startswith(start)]
        assert rates[id(each)] == own[0], name
    assert set(rates.values()) == {rate for _, rate in OF_MODE[mode]}


def test_without_a_rate_of_its_own_a_part_has_the_optimizers(root):
    for mode in ("iisan", "fft"):
        method = built(root, "optimizer.lr=0.25", mode=mode)
        groups = [group for each in method.optimizers(method.model) for group in each.param_groups]
        assert {group["lr"] for group in groups} == {0.25}


def test_only_the_side_network_and_the_filter_move(root):
    course = Course(built(root, *LIVE))
    before = course.weights()
    course.step()
    after = course.weights()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert {name.split(".")[0] for name in moved} == {"encoder", "filter"}
    assert all(name.startswith(("encoder.side.", "filter.")) for name in after)


def test_modality_dropout_is_drawn_anew_each_step_and_alike_in_every_run(root):
    still = ["method.modality_dropout=0.4", "optimizer=sgd", "optimizer.lr=1e-12"]

    def losses():
        """Of the same windows and weights, as the first, the second and the first step."""
        method = built(root, *still)
        method.model.train()
        batch = whole_batch(method)
        return [method.loss(replace(batch, step=step)).item() for step in (0, 1, 0)]

    first, second, again = losses()
    assert first == again != second
    assert losses() == [first, second, again]


def test_compiling_changes_nothing_of_what_is_saved(root):
    """A run may go on with the other setting, and its file holds every weight once."""
    plain, other = (built(root, f"method.compile={given}").model for given in ("false", "true"))
    assert list(other.state_dict()) == list(plain.state_dict())
    other.load_state_dict(plain.state_dict())


def test_a_compiled_side_network_trains_as_the_plain_one(root, monkeypatch):
    """By a backend without a compiler: what is compiled to is not this test's."""
    compiled = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda module: compiled(module, backend="aot_eager", fullgraph=True)
    )
    plain, other = Course(built(root)), Course(built(root, "method.compile=true"))
    for number in range(2):
        assert other.step(number) == pytest.approx(plain.step(number), rel=1e-4)
    for name, gradient in plain.gradients[0].items():
        assert torch.allclose(other.gradients[0][name], gradient, rtol=1e-3, atol=1e-6), name
    assert torch.allclose(other.method.table(), plain.method.table(), atol=1e-3)
