"""The leaderboard: runs of one dataset and protocol side by side, seeds together, quality beside cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from effrec_cli.errors import unknown_name
from effrec_cli.evaluation.tpme import tpme
from effrec_cli.report.figures import mean
from effrec_cli.report.runs import Run, find_runs
from effrec_cli.report.settings import device_name, differing, settings_of
from effrec_cli.result import Result
from effrec_cli.schema.protocols import USUAL, is_rising, shortfall

_NAMED = 3
"""Folders named in a note."""


@dataclass
class Entry:
    """One line of a board: a run, or the runs that differ in nothing but the seed.

    A seed that was run again is no evidence of its own: its runs count together, as their mean.

    Attributes:
        runs: what it is made of, all with a result.
        settings: the settings that tell it from the board's other lines.
        tpme: see `evaluation.tpme`; None where it has no meaning.
        tpme_with_cache: the same with each epoch's share of the seconds that filling a cache took, over the
            epochs of the run; None also where no run of the board reads one.
        seconds_with_factors: training and validating, drawing the sample and a share of the factorisation
            that the run starts from: 1 / R of it where R runs of the board start from the same. None where
            no run of the board starts from one.
    """

    runs: list[Run]
    settings: dict[str, Any] = field(default_factory=dict)
    tpme: float | None = None
    tpme_with_cache: float | None = None
    seconds_with_factors: float | None = None

    @property
    def results(self) -> list[Result]:
        """The results of its runs."""
        return [run.result for run in self.runs if run.result is not None]

    @property
    def first(self) -> Result:
        """A result to read what all have in common from."""
        return self.results[0]

    @property
    def seeds(self) -> list[int]:
        """The seeds of its runs, each once."""
        return sorted({result.seed for result in self.results})

    @property
    def repeats(self) -> list[Run]:
        """Its runs whose seed an earlier one of them has."""
        earlier: set[int] = set()
        again = []
        for run, result in zip(self.runs, self.results, strict=True):
            again += [run] if result.seed in earlier else []
            earlier.add(result.seed)
        return again

    def scores(self, metric: str, part: str = "test") -> list[float | None]:
        """Returns one score for each seed, in the order of their first runs."""
        return self._by_seed(lambda result: result.metrics.get(part, {}).get(metric))

    def ceiling_share(self, metric: str) -> float | None:
        """Returns the mean score as a share of the best possible ranker's, where that is known and higher."""
        best = (self.first.ceiling or {}).get(metric) if is_rising(metric) else None
        reached = mean(self.scores(metric))
        return reached / best if best and reached is not None else None

    def cost(self, read: Callable[[Result], float | None]) -> float | None:
        """Returns the mean over the seeds of one figure of cost."""
        return mean(self._by_seed(read))

    def _by_seed(self, read: Callable[[Result], float | None]) -> list[float | None]:
        found: dict[int, list[float | None]] = {}
        for result in self.results:
            found.setdefault(result.seed, []).append(read(result))
        return [mean(values) for values in found.values()]

    @property
    def cache_share(self) -> float:
        """The seconds that an epoch bears of filling a cache, were it filled for this run alone."""
        return self.cost(_cache_share) or 0.0

    def axes(self) -> tuple[float | None, float | None, float | None]:
        """Returns what TPME is made of: seconds an epoch, trainable parameters, peak bytes."""
        return (
            self.cost(lambda result: result.cost.seconds_per_epoch),
            self.cost(lambda result: result.cost.parameters.trainable),
            self.cost(lambda result: result.cost.peak_memory_bytes),
        )


@dataclass
class Board:
    """One table: the entries that may be ranked against each other.

    Attributes:
        dataset: its name.
        content_hash: of its content.
        protocol: how all its metrics were measured.
        metric: what it is sorted by, best first.
        entries: its lines.
        notes: what a reader must know.
    """

    dataset: str
    content_hash: str
    protocol: dict[str, Any]
    metric: str
    entries: list[Entry]
    notes: list[str] = field(default_factory=list)


@dataclass
class Comparison:
    """What `effrec compare` prints.

    Attributes:
        boards: one for each dataset and protocol, the fullest first.
        unfinished: runs without a result.
        copies: folders that hold the very run of another one, and that other one; only the latter counts.
    """

    boards: list[Board]
    unfinished: list[Run]
    copies: list[tuple[Path, Path]] = field(default_factory=list)


def compare(paths: list[Path], metric: str | None = None, *, per_run: bool = False) -> Comparison:
    """Returns the runs at and below `paths` as boards.

    Args:
        paths: run folders, or folders that hold some at any depth.
        metric: what to sort by; None takes what most of the board's runs were selected by.
        per_run: a line for every run, instead of one for those that differ only in the seed.

    Raises:
        ConfigError: a path is not there, no run is found, or no run has the metric.
    """
    runs = find_runs(paths)
    finished, copies = _each_once([run for run in runs if run.result])
    groups = _grouped(finished, lambda run: _table_key(_result(run)))
    boards = [_board(group, metric, per_run) for group in groups]
    if metric is not None:
        _check_metric(metric, finished)
    unfinished = [run for run in runs if run.result is None]
    return Comparison(sorted(boards, key=lambda board: -len(board.entries)), unfinished, copies)


def _each_once(runs: list[Run]) -> tuple[list[Run], list[tuple[Path, Path]]]:
    """Returns the runs without copies, and the copies with what they are copies of.

    A copy has the same settings, seed, metrics and costs to the last digit; a repeated run has other times.
    """
    groups = _grouped(runs, lambda run: _canonical(asdict(_result(run))))
    copies = [(copy.folder, group[0].folder) for group in groups for copy in group[1:]]
    return [group[0] for group in groups], copies


def _board(runs: list[Run], metric: str | None, per_run: bool) -> Board:
    groups = [[run] for run in runs] if per_run else _grouped(runs, lambda run: _entry_key(_result(run)))
    entries = [Entry(group) for group in groups]
    for entry, settings in zip(entries, differing([entry.first for entry in entries]), strict=True):
        entry.settings = settings
    chosen = metric or _usual_metric(_result(run) for run in runs)
    entries.sort(key=lambda entry: _rank(mean(entry.scores(chosen)), chosen))
    first = _result(runs[0])
    _fill_factors(entries)
    notes = [*_fill_tpme(entries), *_mixed_commits(entries), *_repeated(entries)]
    return Board(
        str(first.dataset.get("name")), _content(first), _comparable(first.protocol), chosen, entries, notes
    )


def _rank(score: float | None, metric: str) -> tuple[bool, float]:
    """Returns a key that puts the better scores of a metric first and missing ones last."""
    return score is None, 0.0 if score is None else shortfall(metric, score)


def _fill_tpme(entries: list[Entry]) -> list[str]:
    """Sets TPME where it has a meaning, and returns why it has none elsewhere."""
    timed = [entry for entry in entries if None not in entry.axes()]
    if len(timed) < 2:
        return ["TPME needs two entries that were trained in epochs."] if len(entries) > 1 else []
    for what, read in _SAME_FOR_TPME.items():
        found = sorted({read(result) for entry in timed for result in entry.results})
        if len(found) > 1:
            return [f"No TPME: it compares costs on one {what}, and these runs used {', '.join(found)}."]
    times, parameters, memories = zip(*(entry.axes() for entry in timed), strict=True)
    for entry, value in zip(timed, tpme(times, parameters, memories), strict=True):
        entry.tpme = value
    if any(entry.cache_share for entry in timed):
        borne = [seconds + entry.cache_share for seconds, entry in zip(times, timed, strict=True)]
        for entry, value in zip(timed, tpme(borne, parameters, memories), strict=True):
            entry.tpme_with_cache = value
    left_out = len(entries) - len(timed)
    return [f"TPME leaves out {left_out} without epochs, memory or parameters."] if left_out else []


def _fill_factors(entries: list[Entry]) -> None:
    """Sets the seconds with a share of the factorisation, where a run of the board starts from one."""
    sharing = Counter(result.cost.cache_id for entry in entries for result in entry.results)
    if set(sharing) == {None}:
        return

    def borne(result: Result) -> float:
        cost = result.cost
        share = (cost.seconds_cache or 0.0) / sharing[cost.cache_id] if cost.cache_id else 0.0
        return cost.seconds_total + (cost.seconds_sample or 0.0) + share

    for entry in entries:
        entry.seconds_with_factors = entry.cost(borne)


def _cache_share(result: Result) -> float:
    return (result.cost.seconds_cache or 0.0) / max(1, result.cost.epochs)


_SAME_FOR_TPME: dict[str, Callable[[Result], str]] = {
    "device": device_name,
    "precision": lambda result: result.precision,
    "kind of memory": lambda result: result.cost.memory_kind,
}


def _mixed_commits(entries: list[Entry]) -> list[str]:
    mixed = [entry for entry in entries if len({result.commit for result in entry.results}) > 1]
    return (
        [f"{len(mixed)} of the lines put runs of several commits together; --per-run shows each."]
        if mixed
        else []
    )


def _repeated(entries: list[Entry]) -> list[str]:
    """Returns one line on the runs that repeat the settings and the seed of another."""
    again = [str(run.folder) for entry in entries for run in entry.repeats]
    if not again:
        return []
    more = f" and {len(again) - _NAMED} more" if len(again) > _NAMED else ""
    return [
        f"Settings and seed of another run: {', '.join(again[:_NAMED])}{more}; "
        "a seed counts once, as the mean of its runs."
    ]


def _usual_metric(results: Iterable[Result]) -> str:
    """Returns the metric that most runs chose their best weights by."""
    monitors = Counter(result.config.get("evaluation", {}).get("monitor") or USUAL for result in results)
    return str(monitors.most_common(1)[0][0])


def _check_metric(metric: str, runs: list[Run]) -> None:
    known = {name for run in runs for name in _result(run).metrics.get("test", {})}
    if known and metric not in known:
        raise unknown_name("metric in these runs", metric, known)


def _result(run: Run) -> Result:
    if run.result is None:
        raise ValueError(f"{run.folder} has no result")
    return run.result


def _comparable(protocol: dict[str, Any]) -> dict[str, Any]:
    """Returns the stamp without what only says which metrics were taken, not what they mean."""
    return {key: value for key, value in protocol.items() if key not in ("ks", "metrics")}


def _content(result: Result) -> str:
    """Returns the content hash of what the run is judged on: of a sample that of its parent."""
    return str((result.dataset.get("sample") or {}).get("parent") or result.dataset.get("hash"))


def _table_key(result: Result) -> str:
    return _canonical([_content(result), _comparable(result.protocol)])


def _entry_key(result: Result) -> str:
    return _canonical([result.method, result.model, settings_of(result)])


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _grouped(runs: list[Run], key: Callable[[Run], str]) -> list[list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())
