"""Models of the transformers package as networks of an encoder."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effrec_cli.models.encoders.network import Network, PartedNetwork

PARTED = frozenset(
    ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet", "modernbert")
)
"""Types of models that run from given states on, in the place of their embeddings."""
# Those of them whose attention takes a mask as it is. Given only which tokens are real, transformers asks
# whether all are, and a GPU has to be waited for.
_TAKE_MASKS = PARTED - {"mpnet", "modernbert"}
LATE_NORM = frozenset(
    f"{kind}_vision_model" for kind in ("clip", "altclip", "chinese_clip", "metaclip_2", "mlcd")
)
"""Vision models whose `last_hidden_state` is that before their last norm."""
RESIZE = "bilinear, antialiased, whole"
"""How images become the size that a model reads: in a digest of what its states depend on."""
_INTERPOLATE = "interpolate_pos_encoding"
# What norms after the last layer are called.
_TAIL = {"final_norm", "layernorm", "norm", "ln_f", "post_layernorm", "final_layer_norm", "layer_norm"}


class HubNetwork(Network):
    """A model of transformers.

    Args:
        model: takes text or images, gives `last_hidden_state`.
        dim: width D of that.
    """

    def __init__(self, model: Any, dim: int) -> None:
        super().__init__(dim)
        self.model = model

    def layers(self) -> nn.ModuleList | None:
        """Returns its layers in order, or None where they cannot be told."""
        path = path_of_layers(self.model)
        return None if path is None else self.model.get_submodule(path)

    def tail(self) -> list[nn.Module]:
        """Returns the norms after the last layer."""
        path = path_of_layers(self.model) or ""
        holders = {self.model, self.model.get_submodule(path.rpartition(".")[0])}
        return [child for holder in holders for name, child in holder.named_children() if name in _TAIL]


class HubText(HubNetwork, PartedNetwork):
    """A text model of transformers; see `HubNetwork`."""

    def __init__(self, model: Any, dim: int) -> None:
        super().__init__(model, dim)
        self.parted = model.config.model_type in PARTED
        fused = model.config._attn_implementation == "sdpa"
        self._takes_masks = fused and model.config.model_type in _TAKE_MASKS
        self._views: tuple[Any, Any] = (None, None)

    def forward(self, inputs: Tensor, real: Tensor | None) -> Tensor:
        """Returns states [n, w, D]."""
        return self._states(self.model, real, input_ids=inputs)

    def lower(self, inputs: Tensor, real: Tensor | None) -> Tensor:
        """Returns the states [n, w, D] that layer `frozen` reads."""
        view = self._views[0]
        found: list[Tensor] = []
        layers = self.layers()
        assert layers is not None
        hook = layers[self.frozen].register_forward_pre_hook(
            lambda _, args, named: found.append(args[0] if args else named["hidden_states"]), with_kwargs=True
        )
        try:
            self._states(view, real, input_ids=inputs)
        finally:
            hook.remove()
        return found[0]

    def upper(self, states: Tensor, real: Tensor | None) -> Tensor:
        """Returns the last states [n, w, D] from those that layer `frozen` reads."""
        return self._states(self._views[1], real, inputs_embeds=states)

    def freeze(self, layers: int) -> None:
        """Parts the network there: what lies below runs without dropout from now on."""
        if self.parted:
            self._views = (
                _view(self.model, slice(layers + 1), embeds=True),
                _view(self.model, slice(layers, None), embeds=False),
            )
        super().freeze(layers)

    def _states(self, model: Any, real: Tensor | None, **inputs: Tensor) -> Tensor:
        mask = real
        if real is not None:
            mask = real[:, None, None, :] if self._takes_masks else real.long()
        states: Tensor = model(**inputs, attention_mask=mask).last_hidden_state
        return states


class HubImage(HubNetwork):
    """A vision model of transformers; see `HubNetwork`. Images are stretched to the size that it reads.

    Args:
        model: takes `pixel_values`, gives states [n, w, D] or a map [n, D, height, width].
        dim: width D of these.
        size: height and width of what it reads.
        mean: of each colour, of values from 0 to 1.
        std: of each colour.
        late_norm: norm the last states by what the model norms its first token's with and nothing else.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Any,
        dim: int,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        late_norm: bool = False,
    ) -> None:
        super().__init__(model, dim)
        self.size, self._late_norm = size, late_norm and model.config.model_type in LATE_NORM
        # Models that can read another size than their own have to be told, but for those that always can.
        told = size != _own_size(model.config) and _INTERPOLATE in inspect.signature(model.forward).parameters
        self._named = {_INTERPOLATE: True} if told else {}
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, inputs: Tensor, real: Tensor | None) -> Tensor:
        """Returns states [n, w, D] of pixels uint8 [n, height, width, 3]."""
        values = inputs.movedim(-1, 1).to(self.mean.dtype) / 255
        if values.shape[2:] != self.size:
            values = F.interpolate(values, self.size, mode="bilinear", antialias=True)
        values = (values - self.mean) / self.std
        states: Tensor = self.model(pixel_values=values, **self._named).last_hidden_state
        if self._late_norm:
            states = self.model.post_layernorm(states)
        return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states


def _own_size(config: Any) -> tuple[int, ...]:
    """Returns the height and width for which a vision model has places, nothing where it says none."""
    size = getattr(config, "image_size", None) or ()
    return (size, size) if isinstance(size, int) else tuple(size)


class _Given(nn.Module):
    """Stands for a part of a model and gives the states that it is given."""

    def forward(self, *given: Any, **named: Any) -> Tensor:
        values = (*given, *named.values())
        return next(value for value in values if torch.is_tensor(value) and value.is_floating_point())


def path_of_layers(model: Any) -> str | None:
    """Returns the name of the list that holds as many modules as the model has layers, or None."""
    count = getattr(model.config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return str(name)
    return None


def _view(model: Any, chosen: slice, *, embeds: bool) -> Any:
    """Returns a model that shares all weights and has some of the layers, and embeddings or none.

    Copies are of the modules that hold the list and of nothing else, so that a module keeps its state, its
    mode and its device whichever way it is reached.
    """
    root = copied = _shallow(model)
    *holders, last = str(path_of_layers(model)).split(".")
    for name in holders:
        copied._modules[name] = _shallow(copied._modules[name])
        copied = copied._modules[name]
    copied._modules[last] = copied._modules[last][chosen]
    for name in ("embeddings", "embeddings_project"):
        if not embeds and name in root._modules:
            root._modules[name] = _Given()
    return root


def _shallow(module: nn.Module) -> Any:
    made = copy.copy(module)
    made._modules = dict(module._modules)
    return made
