"""Side networks small enough to check by hand, and the same network as plain loops over towers and taps."""

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from effrec_cli.models.side.network import SideNetwork
from effrec_cli.models.taps import Taps, TapShape
from effrec_cli.models.transformer import ACTIVATIONS

SMALL = TapShape(text_dim=6, text_taps=3, image_dim=6, image_taps=3)
SHAPES = {
    "equal": SMALL,
    "text longer": TapShape(6, 5, 6, 3),
    "image longer": TapShape(6, 2, 6, 4),
    "text wider": TapShape(8, 3, 6, 3),
    "image wider": TapShape(5, 3, 7, 3),
    "text wider and longer": TapShape(8, 4, 6, 2),
    "text wider, image longer": TapShape(8, 2, 6, 4),
    "one tap": TapShape(6, 1, 6, 1),
    "one tap and three": TapShape(6, 1, 6, 3),
}
ALONE = {"text alone": TapShape(6, 3, 0, 0), "image alone": TapShape(0, 0, 6, 3)}


def built(shape=SMALL, *, towers="both", dim=4, rank=3, seed=0, **settings):
    """Returns a float64 network whose every parameter is random and far from 0."""
    network = SideNetwork(shape, towers=towers, dim=dim, rank=rank, **settings).double()
    drawn = torch.Generator().manual_seed(seed)
    for name, param in network.named_parameters():
        scale = 0.1 if name.endswith("gates") else 0.5
        param.data = scale * torch.randn(param.shape, generator=drawn, dtype=torch.float64)
    return network


def some_taps(shape=SMALL, n=5, *, constant=(), seed=1):
    """Returns random float64 taps; those at the positions `constant` are [1, D]."""
    drawn = torch.Generator().manual_seed(seed)

    def of(width, count):
        rows = [1 if at in constant else n for at in range(count)]
        return tuple(torch.randn(row, width, generator=drawn, dtype=torch.float64) for row in rows)

    return Taps(of(shape.text_dim, shape.text_taps), of(shape.image_dim, shape.image_taps))


def identity_blocks(network):
    """Makes every block add nothing, and returns the network."""
    for blocks in network.blocks.values():
        for param in (blocks.up, blocks.up_bias):
            param.data.zero_()
    return network


def set_gates(network, tower, value):
    """Sets the gates' parameters of a tower."""
    for name, blocks in network.blocks.items():
        if tower in name.split("_"):
            blocks.gates.data.view(blocks.shape)[:, name.split("_").index(tower)] = value


def ends(network, taps):
    """Returns each tower's last state [n, D] by its name."""
    states = network.states(taps)
    return {name: state[at] for names, state in states.items() for at, name in enumerate(names)}


def naive_ends(network, taps):
    """Returns what `ends` does, by a loop over towers and taps as papers/iisan sections 1.5 and 1.10 say."""
    shape, gated = network.shape, next(iter(network.blocks.values())).gates is not None
    n = max(len(tap) for tap in taps.text + taps.image)
    feeds = {"text": list(taps.text), "image": list(taps.image)}
    found = {}
    for tower in ("text", "image"):
        state = 0
        for k, (gate, block) in enumerate(_blocks(network, tower)):
            tap = feeds[tower][k]
            state = block(gate * tap + (1 - gate) * state if gated else tap + state)
            found[tower] = state.expand(n, -1)
    count = min(shape.text_taps, shape.image_taps)
    state = 0
    for k, (gate, block) in enumerate(_blocks(network, "inter")):
        text, image = feeds["text"][-count:][k], feeds["image"][-count:][k]
        if network.transform is not None and network.wider == "text":
            text = _transformed(network.transform, text, k)
        elif network.transform is not None:
            image = _transformed(network.transform, image, k)
        state = block(state + gate * image + (1 - gate) * text if gated else state + image + text)
        found["inter"] = state.expand(n, -1)
    return found


def naive(network, taps):
    """Returns the vectors [n, d] by way of `naive_ends`, one head after the other (section 1.6)."""
    states, heads = naive_ends(network, taps), network.heads
    parts = []
    for name in heads.names:
        key, at = next((key, names.index(name)) for key, names in heads.members.items() if name in names)
        pair = heads.pairs[key]
        inner_bias = pair.inner_bias.view(len(heads.members[key]), -1)[at]
        outer_bias = pair.outer_bias.view(len(heads.members[key]), -1)[at]
        parts.append((states[name] @ pair.inner[at] + inner_bias) @ pair.outer[at] + outer_bias)
    return F.linear(torch.cat(parts, dim=1), heads.fusion.weight, heads.fusion.bias)


def gradients(network, vectors):
    """Returns the gradients of a fixed random weighing of vectors, by the parameters' names."""
    drawn = torch.Generator().manual_seed(7)
    weights = torch.randn(vectors.shape, generator=drawn, dtype=torch.float64)
    names, params = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad((vectors * weights).sum(), params, allow_unused=True)
    return dict(zip(names, found, strict=True))


class Counted(TorchDispatchMode):
    """Counts the operators that run inside, those that only look at a tensor anew left out."""

    VIEWS = ("view", "expand", "select", "slice", "unbind", "t.", "transpose", "permute", "squeeze", "detach")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix("aten.").lstrip("_")
        self.count += not (name.startswith((*self.VIEWS, "unsqueeze", "unsafe_view", "alias", "split")))
        return func(*args, **(kwargs or {}))


def _blocks(network, tower):
    """Yields a tower's gates and blocks, the ones that run ahead first."""
    held = [(key, blocks) for key, blocks in network.blocks.items() if tower in key.split("_")]
    for key, blocks in sorted(held, key=lambda each: len(each[0].split("_"))):
        at, (taps, towers) = key.split("_").index(tower), blocks.shape
        down_bias = blocks.down_bias.view(taps, towers, -1)[:, at]
        up_bias = blocks.up_bias.view(taps, towers, -1)[:, at]
        for k in range(taps):
            weights = (blocks.down[k, at], down_bias[k], blocks.up[k, at], up_bias[k])
            gate = None
            if blocks.gates is not None:
                gate = torch.sigmoid(blocks.gates.view(taps, towers)[k, at] / 0.1)
            yield gate, _block(ACTIVATIONS[blocks.activation], *weights)


def _block(activation, down, down_bias, up, up_bias):
    return lambda x: x + activation(x @ down + down_bias) @ up + up_bias


def _transformed(transform, tap, k):
    if transform.kind == "shared":
        return tap @ transform.weight[0] + transform.bias
    if transform.kind == "low_rank":
        tap = tap @ transform.lower[k]
    return tap @ transform.weight[k] + transform.bias.view(transform.taps, -1)[k]
