"""Which weights of a backbone train: all, bottlenecks or low-rank updates inside it, biases, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from effrec_cli.errors import ConfigError, EnvironmentFault
from effrec_cli.models.encoders.network import Network

Say = Callable[[str], None]
MODES = ("fft", "adapter", "lora", "bitfit", "frozen")
INIT_STD = 0.01
# What maps to queries, to values, and to both at once are called in the models of transformers.
_QUERY = frozenset(("query", "query_proj", "q_proj", "q_lin", "q"))
_VALUE = frozenset(("value", "value_proj", "v_proj", "v_lin", "v"))
_FUSED = frozenset(("qkv", "Wqkv", "in_proj", "c_attn", "query_key_value", "qkv_proj"))
# What maps that end attention are called; where they have other names, the last one ends it.
_OUT = frozenset(("o_proj", "out_proj", "out_lin", "c_proj", "Wo", "o", "out", "dense"))
# Weights that only pre-training reads.
_UNREAD = ("mask_token",)


class Bottleneck(nn.Module):
    """Houlsby's adapter: `x + W_up relu(W_down x + b) + b'`, the identity before training.

    Args:
        dim: width D of x.
        rank: rows of W_down.
    """

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, rank), nn.Linear(rank, dim)
        nn.init.normal_(self.down.weight, std=INIT_STD)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [..., D] for x [..., D]."""
        return x + self.up(self.down(x).relu())


def choose_weights(
    network: Network, mode: str, *, rank: int, lora_rank: int, lora_alpha: float, path: str, say: Say
) -> None:
    """Says which of a backbone's weights train, and adds what trains beside them (papers/iisan section 4).

    Args:
        network: the backbone.
        mode: one of `MODES`.
        rank: bottleneck of Houlsby's adapters.
        lora_rank: of low-rank updates.
        lora_alpha: their scale times their rank.
        path: the setting that holds the mode, for errors.
        say: receives a line where more is adapted than was asked for.

    Raises:
        ConfigError: the backbone has no such weights, or its parts cannot be told.
        EnvironmentFault: peft cannot be imported.
    """
    network.requires_grad_(mode == "fft")
    if mode == "fft":
        for name, weight in network.named_parameters():
            weight.requires_grad_(name.rpartition(".")[2] not in _UNREAD)
    elif mode == "adapter":
        add_bottlenecks(network, rank, path)
    elif mode == "lora":
        add_low_rank(network, lora_rank, lora_alpha, path, say)
    elif mode == "bitfit":
        train_biases(network, path)


def add_bottlenecks(network: Network, rank: int, path: str) -> None:
    """Puts two adapters into each layer: behind the last map of its attention, and of its feed-forward.

    They stand inside the residual connections, before anything is added or normed. The weights that are
    there keep their names.

    Raises:
        ConfigError: these maps cannot be told.
    """
    for layer in _layers(network, path):
        for place in _outputs(layer, network.dim, path):
            place.add_module("adapter", Bottleneck(network.dim, rank))
            place.register_forward_hook(_adapted)


def _adapted(place: Any, _: Any, output: Tensor) -> Tensor:
    adapted: Tensor = place.adapter(output)
    return adapted


def add_low_rank(network: Network, rank: int, alpha: float, path: str, say: Say) -> None:
    """Puts low-rank updates beside the query and value maps of each layer, by peft; they start at zero.

    Where one map makes queries, keys and values, it has one update for all three, and `say` is told.

    Raises:
        ConfigError: a layer has no such maps.
        EnvironmentFault: peft cannot be imported.
    """
    names = {id(part): name for name, part in network.named_modules()}
    chosen: list[str] = []
    for layer in _layers(network, path):
        maps = _attention_maps(layer)
        if not maps:
            what = "A layer of this backbone has no maps to queries and values that are known by name."
            raise ConfigError(what, where=f"{path}=lora", fix=f"{path}=adapter, or {path}=fft")
        chosen += [names[id(each)] for each in maps]
    if any(name.rpartition(".")[2] in _FUSED for name in chosen):
        say("One map of this backbone makes queries, keys and values: LoRA adapts all three.")
    _inject(network, chosen, rank, alpha, path)


def train_biases(network: Network, path: str) -> None:
    """Lets all biases train.

    A pooler's is among them where it was kept; as published, that one is counted and has no gradient.

    Raises:
        ConfigError: there are none.
    """
    biases = [each for name, each in network.named_parameters() if name.endswith("bias")]
    if not biases:
        what = "This backbone has no biases that could train."
        raise ConfigError(what, where=f"{path}=bitfit", fix=f"{path}=adapter, or {path}=lora")
    for each in biases:
        each.requires_grad_(True)


def _layers(network: Network, path: str) -> Iterator[nn.Module]:
    layers = network.layers()
    if layers is None:
        what = "The layers of this backbone cannot be told apart."
        raise ConfigError(what, where=path, fix=f"{path}=fft")
    yield from layers


def _maps(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Returns the linear maps of a module by name, in their order."""
    return [(name, part) for name, part in module.named_modules() if _is_map(part)]


def _is_map(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear) or _turned(part)


def _turned(part: nn.Module) -> bool:
    """Returns whether a linear map is transformers' Conv1D, which keeps its weights the other way round."""
    return type(part).__name__ == "Conv1D"


def _attention_maps(layer: nn.Module) -> list[nn.Module]:
    """Returns a layer's maps to queries and to values, or to both at once; nothing where one is missing."""
    by_leaf = [(_leaf(name), part) for name, part in _maps(layer) if _attends(name)]
    apart = [part for leaf, part in by_leaf if leaf in _QUERY | _VALUE]
    if {leaf for leaf, _ in by_leaf} & _QUERY and {leaf for leaf, _ in by_leaf} & _VALUE:
        return apart
    return [part for leaf, part in by_leaf if leaf in _FUSED]


def _outputs(layer: nn.Module, dim: int, path: str) -> list[nn.Module]:
    """Returns the map that ends a layer's attention, and the one that ends its feed-forward."""
    maps = [(name, part) for name, part in _maps(layer) if _width(part) == dim]
    inside = [(name, part) for name, part in maps if _attends(name)]
    ends = [part for name, part in inside if _leaf(name) in _OUT] or [part for _, part in inside]
    behind = [part for name, part in maps if not _attends(name)]
    if ends and behind:
        return [ends[-1], behind[-1]]
    what = "A layer of this backbone has no two maps that end its attention and its feed-forward."
    raise ConfigError(what, where=f"{path}=adapter", fix=f"{path}=lora, or {path}=fft")


def _attends(name: str) -> bool:
    """Returns whether a map of this name is part of attention."""
    return "att" in name.lower()


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _width(place: Any) -> int:
    """Returns the width of what a map gives."""
    return int(place.nf if _turned(place) else place.out_features)


def _inject(network: nn.Module, names: list[str], rank: int, alpha: float, path: str) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise EnvironmentFault(
            f"Low-rank updates need peft, which cannot be imported: {error}.",
            where=f"{path}=lora",
            fix="pip install --upgrade 'effrec[encoders]'",
        ) from error
    turned = any(_turned(network.get_submodule(name)) for name in names)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=names,
        fan_in_fan_out=turned,
    )
    inject_adapter_in_model(config, network)
