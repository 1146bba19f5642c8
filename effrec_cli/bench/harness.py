"""Runs the cells of a suite: every peer in its own process, taking turns, so that drift hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from effrec_cli.bench.records import Record, make_record
from effrec_cli.bench.suites import Cell, Options, Suite
from effrec_cli.bench.worker import Failed, Worker
from effrec_cli.errors import unknown_name

Tell = Callable[[str], None]


def measure(name: str, suite: Suite, options: Options, tell: Tell) -> Iterator[Record]:
    """Yields one record for each cell and peer, a cell at a time, until the time is up.

    Raises:
        ConfigError: no cell is called as asked for.
    """
    begun = time.monotonic()
    cells = chosen(suite.cells(options), options)
    for at, cell in enumerate(cells):
        if at and time.monotonic() - begun > 60 * options.minutes:
            left = ", ".join(other.name for other in cells[at:])
            tell(f"after {options.minutes:g} minutes not started: {left} (--minutes gives more)")
            return
        tell(f"{name}: {cell.name}")
        yield from measure_cell(name, suite, cell, options)


def chosen(cells: list[Cell], options: Options) -> list[Cell]:
    """Returns the cells whose names hold `options.only`.

    Raises:
        ConfigError: there is none; with the nearest name.
    """
    found = [cell for cell in cells if options.only in cell.name]
    if not found:
        error = unknown_name("cell", options.only, [cell.name for cell in cells], where="--only")
        if options.quick:
            error.fix = f"{error.fix}; without --quick there are others"
        raise error
    return found


def measure_cell(name: str, suite: Suite, cell: Cell, options: Options) -> Iterator[Record]:
    """Yields the records of one cell's peers; one that fails leaves its error and stops no other."""
    workers = [Worker(name, cell, peer, options.device) for peer in cell.peers]
    samples: dict[str, list[dict[str, float]]] = {peer: [] for peer in cell.peers}
    errors: dict[str, str] = {}
    try:
        for worker in workers:
            _attempt(worker, errors, worker.prepare)
        for _ in range(cell.repeats):
            for worker in workers:
                figures = _attempt(worker, errors, worker.work)
                samples[worker.peer] += [figures] if figures else []
    finally:
        for worker in workers:
            worker.stop()
    compared = getattr(suite, "compared", None)
    samples = compared(samples) if compared else samples
    for peer in cell.peers:
        yield make_record(
            name, cell.name, peer, cell.parameters, samples[peer], suite.UNITS, errors.get(peer)
        )


def _attempt(
    worker: Worker, errors: dict[str, str], do: Callable[[], dict[str, float] | None]
) -> dict[str, float] | None:
    """Returns what `do` returns; a peer that has failed is not asked again."""
    if worker.peer in errors:
        return None
    try:
        return do()
    except Failed as failure:
        errors[worker.peer] = str(failure)
        return None
