"""What a run was trained with and does not keep, beside what is there now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from effrec_cli.data.features.spec import differences

Facts = Mapping[str, Any]
# Facts that are digests, which say no more than that a file is another.
_FILES = {"model": "config.json", "weights": "weights", "tokenizer": "tokenizer"}


def changes(then: Facts, now: Facts) -> Iterator[str]:
    """Yields a line for each backbone that is not what a run was trained with.

    Args:
        then: facts of each frozen backbone by modality, as the run's state holds them.
        now: the same of what is there now; what only one of them names is passed over.
    """
    now = json.loads(json.dumps(now))
    for modality in sorted(then.keys() & now.keys()):
        parts = list(_parts(then[modality], now[modality]))
        if parts:
            yield (
                f"The {modality} backbone is not the one that this run was trained with (there): "
                f"{'; '.join(parts)}. What the run has learnt does not fit it, and scores will be others: "
                f"put the files of then back where method.{modality}.name leads, or train anew."
            )


def _parts(then: Facts, now: Facts) -> Iterator[str]:
    """Yields what differs between two backbones, such as `weights` or `max_tokens: 9 there, 12 here`."""
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            there, here = {name: then.get(name)}, {name: now.get(name)}
            yield from [f"other {_FILES[name]}"] if name in _FILES else differences(there, here)
