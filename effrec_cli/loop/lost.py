"""Time of a run that nothing is left of: what came after the last save when its process was killed."""

from __future__ import annotations

import json

from effrec_cli.runfolder import RunFolder


def lost_seconds(folder: RunFolder, lines: int, saved_s: float) -> float:
    """Returns the seconds that metrics.jsonl proves were spent after the save that a run goes on from.

    Args:
        folder: of the run; its metrics.jsonl is not yet cut back.
        lines: of metrics.jsonl when that save was made; 0 where there is none.
        saved_s: seconds spent until then.
    """
    path = folder.path / "metrics.jsonl"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return max(0.0, max(map(_elapsed_s, text.splitlines()[lines:]), default=0.0) - saved_s)


def _elapsed_s(line: str) -> float:
    """Returns when a record was written; 0 for a line that a kill or a bad disk left in pieces."""
    try:
        found = json.loads(line)["elapsed_s"]
    except (ValueError, KeyError, TypeError):
        return 0.0
    return float(found) if isinstance(found, int | float) else 0.0
