"""Blocks, gates and towers by their closed forms, and how many parameters there are."""

import pytest
import torch
from side_helpers import SMALL, built, ends, identity_blocks, naive, set_gates, some_taps

from effrec_cli.models.side.blocks import TEMPERATURE
from effrec_cli.models.side.network import SideNetwork
from effrec_cli.models.taps import Taps, TapShape, tap_rule

USER_ENCODER = 100_224
"""Parameters of the published user encoder, which the published numbers count too."""
SEVEN = TapShape(6, 7, 6, 7)


def num_parameters(shape, **settings):
    with torch.device("meta"):
        network = SideNetwork(shape, **settings)
    return sum(param.numel() for param in network.parameters())


def base(text_taps, image_taps):
    return TapShape(768, text_taps, 768, image_taps)


@pytest.mark.parametrize(
    ("taps", "towers", "count"),
    [
        (7, "both", 4_113_877),
        (13, "both", 5_898_343),
        (4, "both", 3_221_644),
        (7, "intra", 2_776_014),
        (7, "inter", 1_438_151),
    ],
)
def test_parameters_of_the_published_settings(taps, towers, count):
    """Trainable parameters of the reference and its variants, exactly (4, side part)."""
    assert num_parameters(base(taps, taps), towers=towers) + USER_ENCODER == count


def test_parameters_of_unequal_backbones():
    """Trainable parameters of the follow-up: 54,165,589 with texts of 8192, most of them transform (4)."""
    wide = TapShape(8192, 7, 768, 7)
    assert num_parameters(wide, towers="both", head="narrow") + USER_ENCODER == 54_165_589
    transform = 7 * (8192 * 768 + 768)
    rest = 54_165_589 - USER_ENCODER - transform
    shared = num_parameters(wide, towers="both", head="narrow", transform="shared")
    assert shared - rest == 8192 * 768 + 768
    low = num_parameters(wide, towers="both", head="narrow", transform="low_rank", transform_rank=64)
    assert low - rest == 7 * (8192 * 64 + 64 * 768 + 768)
    millions = {(4096, 768): 28.18, (768, 768): 2.94, (8192, 5120): 337.8}
    for (text, image), size in millions.items():
        count = num_parameters(TapShape(text, 7, image, 7), towers="both", head="narrow") + USER_ENCODER
        assert count / 1e6 == pytest.approx(size, abs=0.05 if size > 100 else 0.005)


def test_ungated_towers_have_no_gates():
    difference = num_parameters(base(7, 7), towers="both") - num_parameters(
        base(7, 7), towers="both", fusion="sum"
    )
    assert difference == 21


def test_parameters_of_a_block():
    """A block has 99,136 (10)."""
    blocks = [num_parameters(base(taps, taps), towers="inter", fusion="sum") for taps in (1, 2)]
    assert blocks[1] - blocks[0] == 99_136


def test_blocks_start_almost_as_identity_and_gates_at_a_half():
    """Weights N(0, 0.01^2), biases and gates 0 (section 1.3, 1.4)."""
    torch.manual_seed(0)
    network = SideNetwork(TapShape(200, 2, 200, 2), towers="both", rank=50)
    blocks = network.blocks["text_image_inter"]
    for weight in (blocks.down, blocks.up):
        assert weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert abs(weight.mean()) < 1e-3
    for zero in (blocks.down_bias, blocks.up_bias, blocks.gates, network.heads.fusion.bias):
        assert not zero.any()
    assert torch.equal(blocks.opened(), torch.full((2, 3), 0.5))
    pair = network.heads.pairs["text_image_inter"]
    assert pair.outer.std().item() == pytest.approx((2 / 264) ** 0.5, rel=0.02)
    assert pair.inner.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert not pair.inner_bias.any()
    assert not pair.outer_bias.any()


def test_no_bias_or_gate_is_decayed_and_every_matrix_is():
    """Weight decay goes to tensors of two dimensions and more."""
    for name, param in built(TapShape(8, 4, 6, 3)).named_parameters():
        assert (param.ndim == 1) == name.endswith(("bias", "gates")), name


def test_a_block_without_a_projection_back_is_the_identity():
    """W_up and biases at 0: one tap under an open gate comes out as it went in (10)."""
    shape = TapShape(6, 1, 6, 1)
    network, taps = identity_blocks(built(shape)), some_taps(shape)
    set_gates(network, "text", 100.0)
    assert torch.equal(ends(network, taps)["text"], taps.text[0])


@pytest.mark.parametrize(("theta", "value"), [(0.0, 0.5), (0.1, 0.731059), (0.2, 0.880797)])
def test_values_of_gates(theta, value):
    """Gates at 0, 0.1 and 0.2 (11)."""
    network = built()
    network.blocks["text_image_inter"].gates.data.fill_(theta)
    opened = network.blocks["text_image_inter"].opened()
    torch.testing.assert_close(opened, torch.full_like(opened, value), rtol=0, atol=1e-6)


def test_the_gradient_of_a_gate_at_zero_is_two_and_a_half_times_its_upstream():
    """dg / dtheta = 2.5 at 0, through the towers: with one tap, text ends in g t + ... (11)."""
    shape = TapShape(6, 1, 6, 1)
    network, taps = identity_blocks(built(shape)), some_taps(shape)
    blocks = network.blocks["text_image_inter"]
    blocks.gates.data.zero_()
    (gradient,) = torch.autograd.grad(ends(network, taps)["text"].sum(), blocks.gates)
    assert gradient[0].item() == pytest.approx(2.5 * taps.text[0].sum().item(), rel=1e-12)
    assert pytest.approx(0.1) == TEMPERATURE


def test_identity_blocks_and_half_open_gates_weigh_taps_by_powers_of_two():
    """Intra: weights 2^-7 ... 2^-1 that sum to 0.9921875; inter: half of all taps' sum (12)."""
    network, taps = identity_blocks(built(SEVEN)), some_taps(SEVEN)
    for blocks in network.blocks.values():
        blocks.gates.data.zero_()
    weights = torch.tensor([2.0 ** (k - 7) for k in range(7)], dtype=torch.float64)
    assert weights.sum() == 0.9921875
    found = ends(network, taps)
    for name, own in (("text", taps.text), ("image", taps.image)):
        torch.testing.assert_close(found[name], torch.einsum("k,knd->nd", weights, torch.stack(own)))
    torch.testing.assert_close(found["inter"], sum((*taps.text, *taps.image)) / 2)


def test_intra_gates_choose_between_tap_and_state():
    """Gates at 1: the last tap alone; at 0: no tap at all (13)."""
    network, taps, other = built(), some_taps(), some_taps(seed=2)
    last = Taps((*other.text[:-1], taps.text[-1]), taps.image)
    for value, equal in ((100.0, last), (-100.0, other)):
        set_gates(network, "text", value)
        assert torch.equal(ends(network, taps)["text"], ends(network, equal)["text"])
    set_gates(network, "text", 100.0)
    assert not torch.equal(ends(network, taps)["text"], ends(network, other)["text"])


def test_inter_gates_choose_between_image_and_text():
    """Gates at 1: no text; at 0: no image (13)."""
    network, taps, other = built(), some_taps(), some_taps(seed=2)
    for value, kept in ((100.0, Taps(other.text, taps.image)), (-100.0, Taps(taps.text, other.image))):
        set_gates(network, "inter", value)
        before = ends(network, taps)["inter"]
        torch.testing.assert_close(before, ends(network, kept)["inter"], rtol=1e-14, atol=1e-14)
        assert not torch.allclose(before, ends(network, other)["inter"])


def test_swapped_modalities_and_negated_gates_give_the_same_inter_tower():
    """The inter tower is symmetric (13)."""
    network, taps = built(), some_taps()
    before = ends(network, taps)["inter"]
    network.blocks["text_image_inter"].gates.data.neg_()
    swapped = ends(network, Taps(taps.image, taps.text))["inter"]
    torch.testing.assert_close(swapped, before, rtol=1e-12, atol=1e-12)


def test_layers_that_are_not_read_change_nothing():
    """Taps {0, 2, ..., 12} make 7 blocks, and a hidden state between them is not read (15)."""
    places = tap_rule(12)
    assert places == (0, 2, 4, 6, 8, 10, 12)
    network = built(SEVEN)
    assert network.blocks["text_image_inter"].shape == (7, 3)
    hidden = torch.randn(2, 13, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def vectors(states):
        return network(Taps(*(tuple(each[k] for k in places) for each in states)))

    before = vectors(hidden)
    for k in range(13):
        moved = hidden.clone()
        moved[:, k] += 1
        assert torch.equal(vectors(moved), before) == (k not in places)


def test_names_of_parameters_are_these():
    """A checkpoint is read by these names."""
    names = set(SideNetwork(TapShape(8, 4, 6, 3), towers="both", head="narrow").state_dict())
    blocks = {"down", "down_bias", "up", "up_bias", "gates"}
    pairs = {"inner", "inner_bias", "outer", "outer_bias"}
    assert names == {
        *(f"blocks.{key}.{name}" for key in ("text", "image_inter") for name in blocks),
        *(f"heads.pairs.{key}.{name}" for key in ("text", "image", "inter") for name in pairs),
        "transform.weight",
        "transform.bias",
        "heads.fusion.weight",
        "heads.fusion.bias",
    }


def test_taps_get_their_gradients_too():
    """Whoever trains what makes the taps gets its gradients."""
    network, taps = built(SMALL), some_taps()
    every = [*taps.text, *taps.image]
    for tap in every:
        tap.requires_grad_()
    ours = torch.autograd.grad(network(taps).square().sum(), every)
    theirs = torch.autograd.grad(naive(network, taps).square().sum(), every)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
