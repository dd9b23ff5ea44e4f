"""Sweeps as pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluation.curves import Curve
from ..evaluation.signals import MAPS, SignalRecords
from ..evaluation.sweep import Sweep

_COSTS = {"gmacs": "GMACs per image", "ms": "measured ms per image"}
_STYLES = {
    "oracle": dict(color="tab:green", linestyle="--"),
    "gate": dict(color="tab:blue"),
    "random": dict(color="tab:gray", linestyle=":"),
}
_SQUARES = dict(color="k", marker="s", linestyle="", markersize=8, fillstyle="none")
_STARS = dict(color="k", marker="*", linestyle="--", markersize=9, linewidth=0.8)


def plot_sweep(
    sweep: Sweep, rows: Sequence[dict[str, float]], path: str | Path, title: str = ""
) -> None:
    """Plot quality against cost and time, with the curves of a random gate and an oracle.

    Points of the gate are marked at ``rows`` of the sweep.
    """
    metric = sweep.evaluator.headline
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    panels = figure.subplots(1, len(_COSTS), sharey=True)
    for axes, cost in zip(panels, _COSTS, strict=True):
        for name, style in _STYLES.items():
            _plot(axes, getattr(sweep, name), cost, metric, label=name, **style)
        _plot(axes, rows, cost, metric, color="tab:blue", marker="o", linestyle="")
        _plot(axes, sweep.single, cost, metric, **_SQUARES)
        axes.margins(0.1, 0.15)  # room for the labels
        for stage, point in enumerate(sweep.single):
            left = stage < len(sweep.single) - 1
            style = dict(xytext=(8 if left else -8, -12), ha="left" if left else "right")
            at = point[cost], point[metric]
            axes.annotate(f"stage {stage}", at, textcoords="offset points", **style)
    panels[0].set_ylabel(f"{metric} (%)")
    panels[-1].legend(title=f"gate to oracle: {sweep.gap:.2f} points", loc="lower right")
    save_figure(figure, path, title)


def plot_keep_ratios(
    sweeps: Mapping[float, Sweep],
    front: Sequence[Mapping[str, float]],
    path: str | Path,
    title: str = "",
) -> None:
    """Plot quality against cost for each keep ratio, and the Pareto front over all of them."""
    metric = next(iter(sweeps.values())).evaluator.headline
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["viridis"](np.linspace(0, 0.85, len(sweeps)))
    for (keep_ratio, sweep), colour in zip(sorted(sweeps.items()), colours, strict=True):
        label = f"keep ratio {keep_ratio:g}"
        _plot(axes, sweep.gate, "gmacs", metric, color=colour, label=label)
    _plot(axes, front, "gmacs", metric, label="Pareto front", **_STARS)
    axes.set_ylabel(f"{metric} (%)")
    axes.legend(loc="lower right")
    save_figure(figure, path, title)


def plot_signals(found: SignalRecords, path: str | Path, title: str = "") -> None:
    """Plot quality against the share of the later stage's cost, for each signal of each level."""
    levels = dict(image=list(found.images[0].values), window=list(MAPS), token=list(MAPS))
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    panels = figure.subplots(1, len(levels), sharey=True)
    for axes, (level, signals) in zip(panels, levels.items(), strict=True):
        rankings = {signal: found.ranking(level, signal) for signal in signals}
        spent, quality, _ = next(iter(rankings.values())).oracle_curve()
        axes.plot(spent, quality, label="oracle", **_STYLES["oracle"])
        for signal, ranking in rankings.items():
            spent, quality, random = ranking.curve()
            axes.plot(spent, quality, label=signal)
        axes.plot(spent, random, label="random", **_STYLES["random"])
        axes.set_xlabel(f"share of the {level}s' cost in the last stage")
        axes.grid(True, alpha=0.3)
        axes.legend(loc="lower right")
    panels[0].set_ylabel("mIoU (%)")
    save_figure(figure, path, title)


def plot_seeds(rows: Curve, path: str | Path, title: str = "") -> None:
    """Plot the rows of ``compare``, with intervals of the difference to always thinking."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    first, always = rows[0], next(row for row in rows if row["share"] == 1)
    _plot(axes, [first, always], "gmacs", "mIoU", label="random images", **_STYLES["random"])
    ratios = sorted({row["keep_ratio"] for row in rows})
    colours = colormaps["viridis"](np.linspace(0, 0.85, len(ratios)))
    for ratio, colour in zip(ratios, colours, strict=True):
        own = [first, *(row for row in rows if row["keep_ratio"] == ratio and row is not first)]
        label = "all tokens" if ratio == 1 else f"keep ratio {ratio:g}"
        _plot(axes, own, "gmacs", "mIoU", color=colour, marker="o", label=label)
        gmacs, quality, middle, low, high = (
            np.array([row[key] for row in own])
            for key in ("gmacs", "mIoU", "to_always", "to_always.low", "to_always.high")
        )
        bounds = np.abs((low - middle, high - middle))
        axes.errorbar(gmacs, quality, yerr=bounds, color=colour, linestyle="", capsize=2)
    axes.set_ylabel("mIoU (%)")
    axes.legend(loc="lower right")
    save_figure(figure, path, title)


def save_figure(figure: Figure, path: str | Path, title: str = "", dpi: int = 100) -> None:
    """Write a figure with a title; create its folder."""
    figure.suptitle(title)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)


def _plot(axes: Axes, curve: Curve, cost: str, metric: str, **style) -> None:
    axes.plot([p[cost] for p in curve], [p[metric] for p in curve], **style)
    axes.set_xlabel(_COSTS[cost])
    axes.grid(True, alpha=0.3)
