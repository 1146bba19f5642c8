"""Optimizers and the learning rate."""

import itertools
import math

import pytest
import torch

from effrec_cli.optim import learning_rate, make_optimizer
from effrec_cli.schema import OptimizerConfig

KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))


def backward(net):
    net(torch.arange(5)).pow(3).sum().backward()


@pytest.mark.parametrize("name", KINDS)
def test_it_is_torchs_optimizer_of_that_name(name):
    config = OptimizerConfig(name=name, lr=0.01, betas=[0.8, 0.95], eps=1e-6, weight_decay=0.1)
    ours, theirs = model(), model()
    plain = {"lr": 0.01} if name == "sgd" else {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6}
    reference = KINDS[name](
        [
            {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in theirs.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        **plain,
    )
    optimizer = make_optimizer(ours.parameters(), config)
    assert type(optimizer) is KINDS[name]
    for _ in range(5):
        for net, moves in ((ours, optimizer), (theirs, reference)):
            moves.zero_grad()
            backward(net)
            moves.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", KINDS)
def test_a_set_flag_skips_the_update_and_leaves_the_state(name):
    net = model()
    optimizer = make_optimizer(net.parameters(), OptimizerConfig(name=name))
    before = [p.clone() for p in net.parameters()]
    for p in net.parameters():
        p.grad = torch.full_like(p, math.nan)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    for p, old in zip(net.parameters(), before, strict=True):
        assert torch.equal(p, old)
    optimizer.found_inf = torch.zeros(())
    backward(net)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for p, old in zip(net.parameters(), before, strict=True):
        assert torch.isfinite(p).all()
        assert not torch.equal(p, old)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_biases_and_norms_are_never_decayed(name):
    net = model()
    optimizer = make_optimizer(net.parameters(), OptimizerConfig(name=name, weight_decay=0.5))
    before = {key: p.clone() for key, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for key, p in net.named_parameters():
        assert torch.equal(p, before[key]) == (p.ndim == 1), key


def test_frozen_parameters_are_left_out():
    net = model()
    net[1].weight.requires_grad_(False)
    optimizer = make_optimizer(net.parameters(), OptimizerConfig())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4
    assert make_optimizer([net[2].weight], OptimizerConfig()).param_groups[0]["weight_decay"] == 0


def test_constant_rate_after_a_linear_warm_up():
    config = OptimizerConfig(lr=0.8, warmup_steps=4)
    assert [learning_rate(step, 100, config) for step in range(6)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 0.8, 0.8]
    )
    assert learning_rate(10**6, 100, config) == 0.8


def test_cosine_falls_from_the_peak_to_the_last_step():
    config = OptimizerConfig(lr=1.0, schedule="cosine", warmup_steps=10, final_lr_ratio=0.1)
    rates = [learning_rate(step, 110, config) for step in range(10, 111)]
    assert rates[0] == 1.0
    assert rates[50] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))
    assert learning_rate(500, 110, config) == pytest.approx(0.1)


def test_cosine_shorter_than_its_warm_up_is_defined():
    config = OptimizerConfig(lr=1.0, schedule="cosine", warmup_steps=10)
    assert learning_rate(9, 5, config) == 1.0
    assert learning_rate(11, 5, config) == 0.0


def test_noam_warms_up_and_falls_with_the_root_of_the_step():
    config = OptimizerConfig(lr=0.8, schedule="noam", warmup_steps=4)
    rates = [learning_rate(step, 100, config) for step in range(16)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[15] == pytest.approx(0.4)
    peak = math.sqrt(4) * 0.8
    by_paper = [peak * min((step + 1) ** -0.5, (step + 1) * 4**-1.5) for step in range(16)]
    assert rates == pytest.approx(by_paper)
