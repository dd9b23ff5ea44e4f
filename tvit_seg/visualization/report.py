"""A sweep as one self-contained web page, with the threshold as a slider."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import ConfigError
from ..evaluation.stages import LabelMaps
from ..evaluation.statistics import Calibration, auroc
from ..evaluation.sweep import ImageSweep, Sweep
from ..models.segmentors import ThinkingEncoderDecoder
from ..models.segmentors.image_loss import class_shares
from ..utils.checks import check
from ..utils.text import to_json
from .palette import distinct_palette
from .window_map import stage_colour

MOST_IMAGES = 500
_MOST_BYTES = 22_000_000  # of pictures; with plotly.js, the page stays below 30 MB
_SIDE = 256  # longest of a picture, in pixels
_STEPS = 101  # of the slider
_CHANGES = {  # RGB of pixels whose label depends on the stage, or is wrong in both
    "corrected by the last stage": (46, 160, 67),
    "wrong since the last stage": (218, 54, 51),
    "changed, wrong in both": (240, 190, 40),
    "unchanged and wrong": (150, 150, 150),
}


def find_plotly() -> Path:
    """Find plotly.js in the Python package ``plotly``.

    Raises:
        ConfigError: The package is missing.
    """
    found = find_spec("plotly")
    script = found and found.origin and Path(found.origin).parent / "package_data/plotly.min.js"
    if not script or not script.is_file():
        raise ConfigError("a report needs plotly: pip install 'tvit_seg[report]'")
    return script


@dataclass
class ReportView:
    """Parts of an image that a report keeps, see :func:`~tvit_seg.evaluation.sweep.sweep`.

    Attributes:
        model: The segmentor that is swept.
        palette: (K, 3) RGB.
        every: Images between two with pictures.
    """

    model: ThinkingEncoderDecoder
    palette: Sequence[Sequence[int]]
    every: int

    @classmethod
    def build(cls, model: torch.nn.Module, dataset: Any) -> "ReportView":
        """Build it for a model and a dataset; models other than segmentors are rejected."""
        name = type(model).__name__
        check(isinstance(model, ThinkingEncoderDecoder), "model", name, "a segmentor for a report")
        palette = class_palette(dataset.metainfo)
        return cls(model, palette, -(-len(dataset) // MOST_IMAGES))

    def __call__(self, number: int, pixels: Tensor, maps: LabelMaps) -> dict[str, Any]:
        """Keep confusions, calibration and, of some images, pictures.

        Args:
            number: Of the image in its process.
            pixels: (C, H, W) input before preprocessing.
            maps: Label maps of all stages.
        """
        windows = len(maps.composer.windows)
        found = [
            maps.composer.compose([stage] * windows).cpu().numpy().squeeze().astype(int)
            for stage in range(self.model.num_stages)
        ]
        truth = None if maps.labels is None else maps.labels.cpu().numpy().astype(int)
        boxes = maps.composer.windows.shares(maps.composer.metainfo)
        view: dict[str, Any] = dict(boxes=boxes.numpy().round(4).tolist())
        if truth is not None:
            valid = (truth != maps.ignore_index) & (truth < maps.num_classes)
            truth = np.where(valid, truth, -1)
            view["confusion"] = [
                _confusion(truth[valid], x[valid], maps.num_classes) for x in found
            ]
            if calibration := self._calibration(maps, boxes):
                view["calibration"] = calibration
        if number % self.every == 0:
            view["pictures"] = self._pictures(pixels, truth, found)
        return view

    def _calibration(self, maps: LabelMaps, boxes: Tensor) -> list | None:
        """Counts of predicted classes of all windows, by probability; None without a prediction."""
        logits = maps.image_logits
        if logits is None or logits.shape[1] != maps.num_classes:
            return None
        sigmoid = getattr(self.model.image_loss or self.model.backbone.gate, "use_sigmoid", False)
        probabilities = logits.float().sigmoid() if sigmoid else logits.float().softmax(1)
        height, width = maps.labels.shape
        calibration = Calibration()
        for values, box in zip(probabilities.cpu().numpy(), boxes, strict=True):
            scale = torch.tensor([height, width] * 2)
            top, left, bottom, right = (box * scale).round().int().tolist()
            labels = maps.labels[None, top:bottom, left:right]
            shares = class_shares(labels, maps.num_classes, maps.ignore_index)[0].cpu().numpy()
            if shares.any():
                calibration.add(values, shares > 0 if sigmoid else shares)
        return calibration.counts.tolist()

    def _pictures(
        self, pixels: Tensor, truth: np.ndarray | None, found: list[np.ndarray]
    ) -> dict[str, Any]:
        """Input, label, predictions and difference as data URIs, and classes by frequency."""
        size = _fit(found[0].shape)
        image = pixels[:3].permute(1, 2, 0).cpu().numpy()
        names = ("_channel_conversion", "channel_conversion")  # OneDL's, OpenMMLab's
        if any(getattr(self.model.data_preprocessor, name, False) for name in names):  # is BGR
            image = image[..., ::-1]
        if image.dtype != np.uint8:
            low, high = image.min(), image.max()
            image = (255 * (image - low) / max(high - low, 1e-9)).astype(np.uint8)
        image = image.squeeze(-1) if image.shape[-1] == 1 else image
        picture = Image.fromarray(np.ascontiguousarray(image)).convert("RGB")
        counts = sum(_frequencies(x, len(self.palette)) for x in found)
        if truth is not None:
            counts = counts + _frequencies(truth, len(self.palette))
        present = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        pictures = dict(
            classes=present.tolist(),
            input=_encode(picture.resize(size[::-1], Image.Resampling.BOX), "JPEG", quality=80),
            stages=[self._draw(labels, size) for labels in found],
            difference=_draw(_changes(truth, found), size, list(_CHANGES.values())),
        )
        if truth is not None:
            pictures["label"] = self._draw(truth, size)
        return pictures

    def _draw(self, labels: np.ndarray, size: tuple[int, int]) -> str:
        return _draw(labels, size, self.palette)


def class_palette(metainfo: dict) -> list[list[int]]:
    """Colours of the classes of a dataset, all different; greys where it names none."""
    count = len(metainfo["classes"])
    greys = np.linspace(0, 255, count).astype(int)[:, None].repeat(3, 1)
    return distinct_palette(metainfo.get("palette") or greys.tolist())


def _fit(size: tuple[int, ...]) -> tuple[int, int]:
    """Scale (H, W) down to the size of a picture."""
    scale = min(1.0, _SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _draw(labels: np.ndarray, size: tuple[int, int], palette: Sequence[Sequence[int]]) -> str:
    """Draw labels (H, W) at a smaller size (h, w); -1 is transparent."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, labels.shape, strict=True))
    small = labels[rows[:, None], columns]
    colours = np.array([*palette, (0, 0, 0)], np.uint8)
    clear = len(palette)
    small = np.where(small < 0, clear, small)
    if clear > 255:  # a palette has no room
        picture = Image.fromarray(np.dstack((colours[small], np.uint8(255 * (small < clear)))))
        return _encode(picture, "PNG")
    picture = Image.fromarray(small.astype(np.uint8))
    picture.putpalette(colours.tobytes())
    return _encode(picture, "PNG", transparency=clear, optimize=True)


def _encode(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{text}"


def _frequencies(labels: np.ndarray, num_classes: int) -> np.ndarray:
    return np.bincount(labels[labels >= 0], minlength=num_classes)


def _changes(truth: np.ndarray | None, found: list[np.ndarray]) -> np.ndarray:
    """Indices into ``_CHANGES`` of all pixels, first stage against last."""
    first, last = found[0], found[-1]
    changes = np.full(first.shape, -1)
    changes[first != last] = 2
    if truth is not None:
        changes[(first == last) & (first != truth)] = 3
        changes[(first != last) & (last == truth)] = 0
        changes[(first != last) & (first == truth)] = 1
        changes[truth < 0] = -1
    return changes


def _confusion(truth: np.ndarray, found: np.ndarray, num_classes: int) -> list[list[int]]:
    """Labels, predictions and numbers of pixels of the pairs that occur."""
    counts = np.bincount(truth * num_classes + found, minlength=num_classes**2)
    pairs = np.flatnonzero(counts)
    return [*(x.tolist() for x in np.divmod(pairs, num_classes)), counts[pairs].tolist()]


def write_report(
    sweep: Sweep,
    metainfo: dict,
    rows: Sequence[dict[str, float]],
    threshold: float,
    path: str | Path,
    title: str = "",
) -> int:
    """Write the page of a sweep with a :class:`ReportView`.

    Args:
        sweep: Figures and views of all images.
        metainfo: Of the dataset: classes and palette.
        rows: Of the sweep, at whose thresholds the slider stops too.
        threshold: Where the slider starts.
        path: File to write.
        title: Of the page.

    Returns:
        Number of images with pictures: not more than fit.
    """
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    data = report_data(sweep, metainfo, rows, threshold, title)
    text = to_json(data, separators=(",", ":"))
    # inside a script element, nothing may look like its end or like a comment
    text = text.replace("<", "\\u003c")
    script = find_plotly().read_text(encoding="utf-8")
    before, between, after = template.split("<!-- split -->")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    parts = (before, f"<script>{script}</script>", between, text, after)
    Path(path).write_text("".join(parts), encoding="utf-8")
    return len(data["images"])


def report_data(
    sweep: Sweep,
    metainfo: dict,
    rows: Sequence[dict[str, float]],
    threshold: float,
    title: str,
) -> dict[str, Any]:
    """Collect everything that the page shows; infinite and missing numbers are still floats."""
    first = np.array([image.predictions.entropy[:, 0].mean() for image in sweep.images])
    inner = {sweep.shorten(value) for value in sweep.thresholds(_STEPS)}
    known = {row["threshold"]: row for row in rows}
    steps = [known.get(t) or sweep.row(t) for t in sorted({*inner, *known, threshold})]
    shown = _sample(sweep.images)
    data: dict[str, Any] = dict(
        title=title,
        headline=sweep.evaluator.headline if sweep.labelled else None,
        qualities=list(sweep.quality(sweep.images[0].scores[0])),
        classes=list(metainfo["classes"]),
        palette=class_palette(metainfo),
        stage_colours=[stage_colour(stage) for stage in range(sweep.num_stages)],
        changes=[[name, colour] for name, colour in _CHANGES.items()],
        steps=steps,
        start=[row["threshold"] for row in steps].index(threshold),
        num_images=len(sweep.images),
        entropies=first.round(6).tolist(),
        images=[_describe(sweep, index) for index in shown],
    )
    return {**data, **(_labelled(sweep, first) if sweep.labelled else {})}


def _sample(images: Sequence[ImageSweep]) -> list[int]:
    """Indices of as many images with pictures as fit, evenly spaced."""
    views = [image.view or {} for image in images]
    drawn = [i for i, view in enumerate(views) if "pictures" in view]
    size = len(to_json([views[i]["pictures"] for i in drawn]))
    step = max(-(-size // _MOST_BYTES), -(-len(drawn) // MOST_IMAGES), 1)
    return drawn[::step]


def _describe(sweep: Sweep, index: int) -> dict[str, Any]:
    image = sweep.images[index]
    found, view = image.predictions, image.view or {}
    labelled = image.stage_scores.any()
    correct = sweep.evaluator.correct(image.stage_scores).round(6).tolist() if labelled else None
    return dict(
        name=Path(str(found.metainfo.get("img_path", index))).name,
        entropy=found.entropy.tolist(),
        gmacs=found.gmacs.tolist(),
        boxes=view["boxes"],
        correct=correct,
        **view["pictures"],
    )


def _labelled(sweep: Sweep, entropy: np.ndarray) -> dict[str, Any]:
    """Collect what needs labels; images without are left out."""
    names = ("gate", "random", "oracle", "single")
    totals = np.stack([image.stage_scores for image in sweep.images]).sum(0)  # (stages, 4, K)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = 100 * totals[:, 0] / totals[:, 1]
    views = [image.view or {} for image in sweep.images]
    known = np.array([image.stage_scores.any() for image in sweep.images])
    correct = sweep.evaluator.correct(np.stack([image.stage_scores for image in sweep.images]))
    gain = (correct[:, -1] - correct[:, 0]).round(6)
    confusion = np.zeros((sweep.num_stages, *[totals.shape[-1]] * 2), np.int64)
    calibration = Calibration()
    for view in views:
        for stage, (truth, found, counts) in enumerate(view.get("confusion", ())):
            np.add.at(confusion[stage], (truth, found), counts)
        calibration.counts += np.array(view.get("calibration", 0))
    return dict(
        curves={name: getattr(sweep, name) for name in names},
        gap=sweep.gap,
        iou=iou.tolist(),
        confusion=confusion.tolist(),
        gain=[
            value if ok else None for value, ok in zip(gain.round(6).tolist(), known, strict=True)
        ],
        auroc=auroc(entropy[known], gain[known] > 0),
        calibration=calibration.counts.tolist() if calibration.counts.any() else None,
        calibration_error=calibration.error,
    )
