"""The look of the plots in docs/plots, whose files are the same bytes whenever the same numbers are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def new_figure(panels: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """Returns a figure and its panels side by side, each of this size in inches; wants matplotlib."""
    import matplotlib
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.hashsalt": "effrec", "svg.fonttype": "none", "font.size": 9})
    size = (width * panels, height)
    figure, axes = pyplot.subplots(1, panels, figsize=size, layout="constrained", squeeze=False)
    return figure, list(axes[0])


def save(figure: Any, path: Path) -> None:
    """Writes the figure, with every panel's legend, and lets go of it."""
    from matplotlib import pyplot

    for axes in figure.axes:
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
