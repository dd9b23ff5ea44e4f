"""A sweep as a picture."""

from pathlib import Path

from matplotlib.figure import Figure

from .sweep import Sweep


def plot_sweep(sweep: Sweep, path: str | Path, title: str = "") -> None:
    """Draws quality against cost, with what a random gate and an oracle would reach.

    Args:
        sweep: The figures.
        path: Picture to write; its ending says the format.
        title: Written above.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    styles = {
        "oracle": dict(color="tab:green", linestyle="--"),
        "gate": dict(color="tab:blue", marker="o"),
        "random": dict(color="tab:gray", linestyle=":"),
    }
    for name, style in styles.items():
        curve = getattr(sweep, name)
        axes.plot([p["gmacs"] for p in curve], [p["mIoU"] for p in curve], label=name, **style)
    for stage, point in enumerate(sweep.single):
        axes.plot(point["gmacs"], point["mIoU"], "ks", markersize=8, fillstyle="none")
        axes.annotate(
            f"stage {stage}",
            (point["gmacs"], point["mIoU"]),
            textcoords="offset points",
            xytext=(8, -12),
        )
    axes.set(xlabel="GMACs per image", ylabel="mIoU (%)", title=title)
    axes.grid(alpha=0.3)
    axes.legend(title=f"gate to oracle: {sweep.gap:.2f} points", loc="lower right")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
