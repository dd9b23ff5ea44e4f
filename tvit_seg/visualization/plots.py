"""A sweep as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluation.sweep import Sweep

_COSTS = {"gmacs": "GMACs per image", "ms": "measured ms per image"}
_CURVES = {
    "oracle": dict(color="tab:green", linestyle="--"),
    "gate": dict(color="tab:blue"),
    "random": dict(color="tab:gray", linestyle=":"),
}


def plot_sweep(
    sweep: Sweep, rows: Sequence[dict[str, float]], path: str | Path, title: str = ""
) -> None:
    """Draws quality against cost and time, with what a random gate and an oracle would reach.

    Args:
        sweep: The figures.
        rows: Points of the gate to mark, from ``sweep.row``.
        path: Picture to write; its ending says the format.
        title: Written above.
    """
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    panels = figure.subplots(1, len(_COSTS), sharey=True)
    for axes, cost in zip(panels, _COSTS, strict=True):
        _draw(axes, sweep, rows, cost)
    panels[0].set_ylabel(f"{sweep.judge.headline} (%)")
    panels[-1].legend(title=f"gate to oracle: {sweep.gap:.2f} points", loc="lower right")
    figure.suptitle(title)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def plot_keep_ratios(
    sweeps: Mapping[float, Sweep],
    front: Sequence[Mapping[str, float]],
    path: str | Path,
    title: str = "",
) -> None:
    """Draws quality against cost for each keep ratio, and the settings that no other one beats.

    Args:
        sweeps: The figures for each keep ratio of the token pruning.
        front: Points of the Pareto front, cheapest first.
        path: Picture to write; its ending says the format.
        title: Written above.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    metric = next(iter(sweeps.values())).judge.headline
    colours = colormaps["viridis"](np.linspace(0, 0.85, len(sweeps)))
    for (keep_ratio, sweep), colour in zip(sorted(sweeps.items()), colours, strict=True):
        gmacs, quality = ([p[name] for p in sweep.gate] for name in ("gmacs", metric))
        axes.plot(gmacs, quality, color=colour, label=f"keep ratio {keep_ratio:g}")
    gmacs, quality = ([p[name] for p in front] for name in ("gmacs", metric))
    axes.plot(gmacs, quality, "k*--", linewidth=0.8, markersize=9, label="Pareto front")
    axes.set_xlabel(_COSTS["gmacs"])
    axes.set_ylabel(f"{metric} (%)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.suptitle(title)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _draw(axes: Axes, sweep: Sweep, rows: Sequence[dict[str, float]], cost: str) -> None:
    metric = sweep.judge.headline
    for name, style in _CURVES.items():
        curve = getattr(sweep, name)
        axes.plot([p[cost] for p in curve], [p[metric] for p in curve], label=name, **style)
    axes.plot([row[cost] for row in rows], [row[metric] for row in rows], "o", color="tab:blue")
    for stage, point in enumerate(sweep.single):
        at = (point[cost], point[metric])
        axes.plot(*at, "ks", markersize=8, fillstyle="none")
        offset = dict(textcoords="offset points", xytext=(8, -12))
        axes.annotate(f"stage {stage}", at, **offset)
    axes.set_xlabel(_COSTS[cost])
    axes.grid(alpha=0.3)
