"""Overlays that show the exit stage of each image, or of each of its windows."""

import mmcv
import numpy as np
from mmengine.dist import master_only
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from ..registry import register
from .keep_masks import draw_keep_masks
from .legend import draw_legend, outline
from .palette import distinct_palette
from .window_map import compared_entropy, draw_frame, draw_window_map, stage_colour, write_text


@register("VISUALIZERS")
class ThinkingVisualizer(SegLocalVisualizer):
    """mmseg's visualizer with exits and their cost, and a legend in place of names on regions.

    Image, label map (if there is one) and prediction are side by side, opaque by default; where
    the label is known, the prediction's errors are outlined. A legend shows the classes that occur.
    A whole image is framed in the colour of its stage; with sliding windows, a map shows their
    stages and entropies. With token pruning, a copy of the image for each pruning shows the
    remaining tokens. A caption gives stages, GMACs, and the entropy that the gate compared last
    with its threshold. Classes with the same colour in the palette get different ones.

    Images below ``min_height`` pixels are enlarged. Further arguments are those of
    ``SegLocalVisualizer``.
    """

    def __init__(
        self,
        name: str = "visualizer",
        *args,
        min_height: int = 256,
        alpha: float = 1.0,
        **kwargs,
    ):
        super().__init__(name, *args, alpha=alpha, **kwargs)
        self.min_height = min_height

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        with_labels: bool = False,
        with_image: bool = True,
    ) -> None:
        """Draw a result, and show it or save it to ``out_file`` or the visualization backends.

        Arguments are those of ``SegLocalVisualizer``; class names (``with_labels``) are slow.
        """
        picture = self.paint(image, data_sample, draw_gt, draw_pred, with_labels, with_image)
        self.set_image(picture)
        if show:
            self.show(picture, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(mmcv.rgb2bgr(picture), out_file)
        else:
            self.add_image(name, picture, step)

    def paint(
        self,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        with_labels: bool = False,
        with_image: bool = True,
    ) -> np.ndarray:
        """Draw a result on an image (H, W, 3) RGB: all panels side by side, with the caption."""
        sample = SegDataSample() if data_sample is None else data_sample.to_tensor()
        panels = [image] if with_image else []
        palette = distinct_palette(self.dataset_meta.get("palette") or ())
        meta = (self.dataset_meta.get("classes"), palette)
        fields = [name for name in ("gt_sem_seg", "pred_sem_seg") if name in sample]
        labels = {name: sample.get(name).cpu() for name in fields}
        wanted = dict(gt_sem_seg=draw_gt, pred_sem_seg=draw_pred)
        drawn = [name for name in labels if wanted[name]]
        panels += [self._draw_sem_seg(image, labels[name], *meta, with_labels) for name in drawn]
        panels = [self._enlarge(panel) for panel in panels or [image]]
        maps = {name: data.data[0].numpy() for name, data in labels.items()}
        if "pred_sem_seg" in drawn and "gt_sem_seg" in maps:
            known = maps["gt_sem_seg"] < len(meta[0])
            wrong = known & (maps["gt_sem_seg"] != maps["pred_sem_seg"])
            panels[-1] = outline(panels[-1], wrong)
        if "exit_stage" not in sample:
            return _stack(panels, [maps[name] for name in drawn], meta)
        if len(sample.windows.unique(dim=0)) > 1:  # views of a whole image share one
            panels.append(draw_window_map(self._enlarge(image), sample))
        else:
            panels[-1] = draw_frame(panels[-1], stage_colour(int(sample.exit_stage.max())))
        if "kept_tokens" in sample:
            panels.append(self._enlarge(_keep_masks(image, sample)))
        picture = _stack(panels, [maps[name] for name in drawn], meta)
        caption = np.full((28, picture.shape[1], 3), 255, np.uint8)
        write_text(caption, _describe(sample), (6, 20), 0.5)
        return np.concatenate((picture, caption))

    def _enlarge(self, panel: np.ndarray) -> np.ndarray:
        factor = max(1, -(-self.min_height // panel.shape[0]))
        return np.repeat(np.repeat(panel, factor, axis=0), factor, axis=1)


def _keep_masks(image: np.ndarray, sample: SegDataSample) -> np.ndarray:
    windows = sample.windows if sample.kept_tokens.ndim == 4 else None
    size = sample.get("img_shape")
    panels = draw_keep_masks(image, sample.kept_tokens, sample.patch_size, windows, size)
    return panels[:, image.shape[1] :]


def _stack(panels: list[np.ndarray], labels: list[np.ndarray], meta: tuple) -> np.ndarray:
    """Panels side by side, above the legend of the label maps among them."""
    picture = np.concatenate(panels, axis=1)
    classes, palette = meta
    if not labels or not classes:
        return picture
    return np.concatenate((picture, draw_legend(labels, classes, palette, picture.shape[1])))


def _describe(sample: SegDataSample) -> str:
    """Exit stages, the (mean) entropy that the gate compared with its threshold, cost."""
    exits = sample.exit_stage.reshape(-1)
    stages, last = exits.tolist(), sample.gate_entropy.shape[-1] - 1
    entropies = sample.gate_entropy.reshape(len(exits), -1)
    entropy = float(compared_entropy(exits, entropies).mean())
    threshold = sample.get("gate_threshold")
    if len(stages) > 1:
        counts = (f"{stage}: {stages.count(stage)}" for stage in sorted(set(stages)))
        text = f"windows by stage {', '.join(counts)}, mean H {entropy:.3f}"
        text += "" if threshold is None else f", threshold {threshold:g}"
    else:
        sign = "<" if stages[0] < last else ">="
        text = f"{'stopped after' if stages[0] < last else 'thought on to'} stage {stages[0]}"
        text += f", H {entropy:.3f}" + ("" if threshold is None else f" {sign} {threshold:g}")
    return f"{text}, {sample.gmacs:.3g} GMACs"
