"""The side network: equal to plain loops over towers and taps, whatever the shapes, in every direction."""

import pytest
import torch
from side_helpers import (
    ALONE,
    SHAPES,
    SMALL,
    Counted,
    built,
    gradients,
    identity_blocks,
    naive,
    naive_ends,
    some_taps,
)
from side_helpers import ends as ends_of

from effrec_cli.errors import ConfigError
from effrec_cli.models.side.network import SideNetwork
from effrec_cli.models.taps import Taps, TapShape

SETTINGS = [
    {},
    {"fusion": "sum", "activation": "gelu"},
    {"head": "narrow", "transform": "shared"},
    {"transform": "low_rank", "transform_rank": 2, "activation": "gelu"},
]


def assert_like_loops(network, taps):
    found, expected = network(taps), naive(network, taps)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    ours, theirs = gradients(network, found), gradients(network, expected)
    for name, gradient in theirs.items():
        assert gradient.abs().max() > 0, f"{name} must matter to the loops"
        torch.testing.assert_close(ours[name], gradient, rtol=1e-9, atol=1e-10, msg=name)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_equal_to_loops_over_towers_and_taps(shape, settings):
    """Stacked and fused equals the naive three towers, with all gradients, in float64 (sheet's test 14)."""
    assert_like_loops(built(shape, **settings), some_taps(shape, constant=(0,)))


@pytest.mark.parametrize("towers", ["intra", "inter"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_towers_of_one_kind_equal_the_loops_too(shape, towers):
    """The switches of the towers run, and fuse 2 and 1 of them (17)."""
    network = built(shape, towers=towers)
    assert network.heads.fusion.in_features == {"intra": 2, "inter": 1}[towers] * network.dim
    assert_like_loops(network, some_taps(shape))


@pytest.mark.parametrize("shape", ALONE.values(), ids=ALONE.keys())
def test_one_modality_alone_has_its_intra_tower(shape):
    """Text alone and images alone run (17)."""
    network = built(shape, towers="intra")
    assert network.heads.fusion.in_features == network.dim
    assert_like_loops(network, some_taps(shape))


def test_both_fuses_three_towers_and_the_published_widths():
    """Fusion reads 192, 128 and 64 (17)."""
    for towers, width in (("both", 192), ("intra", 128), ("inter", 64)):
        network = SideNetwork(SMALL, towers=towers)
        assert (network.heads.fusion.in_features, network.heads.fusion.out_features) == (width, 64)


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_few_items_run(shape, n):
    network, taps = (
        built(shape),
        some_taps(shape, n, constant=(0,) if n and min(shape.text_taps, shape.image_taps) > 1 else ()),
    )
    found = network(taps)
    assert found.shape == (n, network.dim)
    found.sum().backward()
    assert all(param.grad is not None for param in network.parameters())
    if n:
        torch.testing.assert_close(found, naive(network, taps), rtol=1e-10, atol=1e-10)


def test_no_items_of_a_constant_tap_are_none():
    shape = TapShape(6, 2, 6, 2)
    one, none = some_taps(shape, 1), some_taps(shape, 0)
    taps = Taps((one.text[0], none.text[1]), (one.image[0], none.image[1]))
    assert built(shape)(taps).shape == (0, 4)


def test_a_tap_given_once_is_that_tap_of_every_item():
    """One row for all items gives bit for bit what a row an item gives (6, side part)."""
    network, taps = built(), some_taps(constant=(0,))
    whole = Taps(*(tuple(tap.expand(5, -1).clone() for tap in each) for each in (taps.text, taps.image)))
    assert torch.equal(network(taps), network(whole))


def test_company_changes_no_vector():
    network, taps = built(SHAPES["text wider and longer"]), some_taps(SHAPES["text wider and longer"], 7)
    some = Taps(*(tuple(tap[2:4] for tap in each) for each in (taps.text, taps.image)))
    torch.testing.assert_close(network(some), network(taps)[2:4], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_the_longer_tower_runs_its_first_blocks_alone(shape):
    """Unequal depth: first blocks alone, the rest paired from the end; the loops' towers one by one (16)."""
    network, taps = built(shape), some_taps(shape)
    expected = naive_ends(network, taps)
    for name, state in ends_of(network, taps).items():
        torch.testing.assert_close(state, expected[name], rtol=1e-11, atol=1e-11, msg=name)


def test_thirteen_text_taps_and_seven_of_images():
    """n_t = 13, n_v = 7: 6 text blocks alone, then 7 of all three; the inter tower reads these 7 (16)."""
    shape = TapShape(6, 13, 6, 7)
    network, taps = built(shape), some_taps(shape)
    assert {name: blocks.shape for name, blocks in network.blocks.items()} == {
        "text": (6, 1),
        "text_image_inter": (7, 3),
    }
    before = ends_of(network, taps)
    for at in (5, 6):
        moved = list(taps.text)
        moved[at] = moved[at] + 1
        after = ends_of(network, Taps(tuple(moved), taps.image))
        assert not torch.equal(after["text"], before["text"])
        assert torch.equal(after["image"], before["image"])
        assert torch.equal(after["inter"], before["inter"]) == (at == 5)


def test_widths_are_matched_for_the_inter_tower_alone():
    """Equal widths need no transformation; else the wider's is for the inter tower alone, either way (16)."""
    assert built().transform is None
    for shape, wider in ((SHAPES["text wider"], "text"), (SHAPES["image wider"], "image")):
        network, taps = built(shape), some_taps(shape)
        assert network.transform.weight.shape == (3, *sorted((shape.text_dim, shape.image_dim))[::-1])
        before = ends_of(network, taps)
        assert before[wider].shape[1] == max(shape.text_dim, shape.image_dim)
        network.transform.weight.data += 1
        after = ends_of(network, taps)
        assert torch.equal(before["text"], after["text"])
        assert torch.equal(before["image"], after["image"])
        assert not torch.equal(before["inter"], after["inter"])
    assert built(SHAPES["text wider"], towers="intra").transform is None


@pytest.mark.parametrize("shape", [SMALL, SHAPES["text wider and longer"]], ids=["equal", "uneven"])
def test_the_number_of_operators_does_not_depend_on_items_and_is_below_the_loops(shape):
    """Nothing runs item by item, forward or backward (33, side part)."""
    network = built(shape)

    def counted(run, n):
        taps = some_taps(shape, n)
        network.zero_grad()
        with Counted() as found:
            run(taps).sum().backward()
        return found.count

    assert counted(network, 2) == counted(network, 50)
    assert counted(network, 2) < counted(lambda taps: naive(network, taps), 2)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("shape", [SMALL, SHAPES["text wider and longer"]], ids=["equal", "uneven"])
def test_half_precision_of_autocast_stays_near(shape, activation):
    """Products round, sums of states do not: vectors and gradients stay within 2 and 5 percent."""
    network, taps = built(shape, activation=activation).float(), some_taps(shape, 20)
    taps = Taps(*(tuple(tap.float() for tap in each) for each in (taps.text, taps.image)))
    exact = network(taps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(taps)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert (rough - exact).norm() < 0.02 * exact.norm()
    near = gradients(network, rough)
    for name, gradient in gradients(network, exact).items():
        assert near[name].dtype == torch.float32
        assert (near[name] - gradient).norm() < 0.05 * gradient.norm(), name


def test_autocast_rounds_products_and_not_the_states():
    """States of blocks that add nothing are exact under autocast, those of others are not."""
    taps = Taps(*(tuple(tap.float() for tap in each) for each in (some_taps().text, some_taps().image)))
    for network, equal in ((built().float(), False), (identity_blocks(built()).float(), True)):
        exact = ends_of(network, taps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = ends_of(network, taps)
        for name, state in rough.items():
            assert state.dtype == torch.float32
            assert torch.equal(state, exact[name]) == equal


def test_gradients_of_gates_under_fp16_are_finite_where_the_others_are():
    """A gate's is a sum over all items and places: under the loss scale it passes 65,504 first."""
    torch.manual_seed(0)
    network = SideNetwork(TapShape(64, 3, 64, 3), towers="both", rank=64, dim=4)
    (blocks,) = network.blocks.values()
    with torch.no_grad():
        blocks.down.fill_(0.02)
        blocks.up.fill_(0.02)
    taps = Taps(*(tuple(torch.rand(128, 64) for _ in range(3)) for _ in range(2)))

    def gradients(upstream, fp16):
        network.zero_grad()
        with torch.autocast("cpu", torch.float16, enabled=fp16):
            (state,) = network.states(taps).values()
        state.backward(torch.full_like(state, upstream))
        return {name: each.grad for name, each in blocks.named_parameters()}

    ones = gradients(1.0, fp16=False)
    upstream = 8000 / max(float(each.max()) for name, each in ones.items() if name != "gates")
    for name, found in gradients(upstream, fp16=True).items():
        expected = upstream * ones[name]
        torch.testing.assert_close(found, expected, rtol=0.01, atol=0.01 * float(expected.abs().max()))


def test_a_compiled_network_is_one_graph_and_the_same():
    """The derivative that is written out goes through `torch.compile` unbroken."""
    shape = SHAPES["text longer"]
    network, taps = built(shape), some_taps(shape, constant=(0,))
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    found, expected = compiled(taps), network(taps)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(network, found), gradients(network, expected))


def test_taps_kept_in_half_precision_are_read():
    network = built().float()
    taps = Taps(*(tuple(tap.bfloat16() for tap in each) for each in (some_taps().text, some_taps().image)))
    exact = Taps(*(tuple(tap.float() for tap in each) for each in (taps.text, taps.image)))
    assert torch.equal(network(taps), network(exact))


def test_taps_of_another_shape_are_refused():
    taps = some_taps()
    for wrong in (Taps(taps.text[1:], taps.image), Taps(some_taps(TapShape(5, 3, 0, 0)).text, taps.image)):
        with pytest.raises(ValueError, match="3 text taps of width 6"):
            built()(wrong)


@pytest.mark.parametrize("shape", ALONE.values(), ids=ALONE.keys())
@pytest.mark.parametrize("towers", ["both", "inter"])
def test_an_inter_tower_needs_two_modalities(shape, towers):
    with pytest.raises(ConfigError, match="alone") as found:
        SideNetwork(shape, towers=towers)
    assert found.value.where == f"method.towers={towers}"
    assert "method.towers=intra" in found.value.fix


def dropped(share, n=4000):
    """Returns which items' text and images matter to vectors in training."""
    network = built(modality_dropout=share)
    taps = some_taps(n=n)
    for tap in (*taps.text, *taps.image):
        tap.requires_grad_()
    torch.manual_seed(0)
    network(taps).sum().backward()
    return [sum(tap.grad.abs().sum(1) for tap in each) > 0 for each in (taps.text, taps.image)]


def test_an_item_loses_a_modality_at_the_set_probability_and_never_both():
    text, image = dropped(0.3)
    assert 0.27 < (~text).float().mean() < 0.33
    assert 0.27 < (~image).float().mean() < 0.33
    assert (text | image).all()
    text, image = dropped(0.5, 100)
    assert (text ^ image).all()


def test_modality_dropout_is_for_training_alone_and_gives_zeros():
    torch.manual_seed(0)
    network, taps = built(SHAPES["text wider"], modality_dropout=0.5), some_taps(SHAPES["text wider"])
    found = network(taps)
    without = [Taps(tuple(0 * tap for tap in taps.text), taps.image)]
    without.append(Taps(taps.text, tuple(0 * tap for tap in taps.image)))
    network.eval()
    torch.testing.assert_close(network(taps), naive(network, taps), rtol=1e-10, atol=1e-10)
    ways = torch.stack([network(each) for each in without])
    assert ((ways - found).abs().amax(-1) < 1e-10).any(0).all()


@pytest.mark.parametrize(("shape", "share"), [(SMALL, 0.6), (SMALL, -0.1), (ALONE["text alone"], 0.1)])
def test_a_modality_dropout_that_cannot_be_is_refused(shape, share):
    towers = "both" if shape is SMALL else "intra"
    with pytest.raises(ConfigError) as found:
        SideNetwork(shape, towers=towers, modality_dropout=share)
    assert found.value.where == f"method.modality_dropout={share}"
