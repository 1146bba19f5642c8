"""Content methods that may keep the encoder's graph of one chunk in place of a whole step's."""

from __future__ import annotations

from typing import Any

from effrec_cli.data.batches import Batches
from effrec_cli.methods.content.graph_memory import recompute_pays
from effrec_cli.methods.content.method import ContentMethod
from effrec_cli.methods.content.modes import EndToEnd
from effrec_cli.methods.content.single_step import SingleStep
from effrec_cli.methods.next_item.choice import Choice


class RecomputingMethod(ContentMethod):
    """A method with the settings `method.recompute` and `method.memory_share`, for mode `SingleStep`.

    What the run chose is kept with its state: one that goes on does as it began.
    """

    _recompute: Choice[bool] | None = None
    _kept_recompute: bool | None = None

    @property
    def may_recompute(self) -> bool:
        """Whether encoding a second time would let go of a graph that grows with the step."""
        return self.kind is SingleStep

    def recall(self, state: dict[str, Any]) -> None:
        """Remembers what the run chose by the memory that was free, which there may be less of now."""
        super().recall(state)
        self._kept_recompute = state.get("recompute")

    def settle_memory(self, batches: Batches) -> None:
        """Settles which of the encoder's states and graphs are kept."""
        super().settle_memory(batches)
        if self.may_recompute and isinstance(self.mode, SingleStep):
            self._recompute = self._settled(batches).kept(self._kept_recompute)
            self.mode.recompute = self._recompute.value

    def _settled(self, batches: Batches) -> Choice[bool]:
        """Returns whether the graph is left away, by what one chunk of it takes here."""
        own, micros = self.config.method, self.config.run.accumulate
        if own.recompute is not None:
            return Choice(own.recompute, "as given")
        share = own.memory_share
        return recompute_pays(self.encoding, batches, self.autocast, micros=micros, share=share)

    def choices(self) -> dict[str, str]:
        """Returns what was left open and became what, and why, once it trains."""
        if self._recompute is None or self.config.method.recompute is not None:
            return {}
        return {"method.recompute": self._recompute.why}

    def extra_state(self) -> dict[str, Any]:
        """Returns the encoder's updates, the mode's numbers, and what was chosen."""
        chosen = {} if self._recompute is None else {"recompute": self._recompute.value}
        return {**super().extra_state(), **chosen}

    def relief(self) -> list[str]:
        """Returns settings that lower the memory of a training step, best first, and what each does.

        Next items are told from the candidates of the whole step, which every micro-batch encodes: parting a
        step does not part what the encoder's graph of it holds.
        """
        split, *smaller = super().relief()
        whole = issubclass(self.kind, EndToEnd) or (self.kind is SingleStep and not self._recomputes)
        parts = [] if whole and self.task == "next_item" else [split]
        return [*self._of_encoder(), *parts, *smaller]

    def _of_encoder(self) -> list[str]:
        """Returns what lowers the encoder's part, where it can be lowered alone."""
        if issubclass(self.kind, EndToEnd):
            return []
        if self.may_recompute and not self._recomputes:
            return ["method.recompute=true holds one chunk's activations, not a step's, and keeps the result"]
        half = max(2, self.limits.tokens // 2)
        return [f"{self.limits_setting}={half} halves what the encoder holds at once"]

    @property
    def _recomputes(self) -> bool:
        """Whether it does, as far as that is decided."""
        chosen = self.config.method.recompute if self._recompute is None else self._recompute.value
        return bool(chosen)

    @property
    def limits_setting(self) -> str:
        """The setting that `limits` are of."""
        return "method.batch_tokens"
