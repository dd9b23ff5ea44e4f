"""Overlays that say which stage each image, or each of its windows, used."""

import cv2
import mmcv
import numpy as np
from mmengine.dist import master_only
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from ..registry import register
from .keep_masks import draw_kept_tokens
from .window_map import draw_window_map, stage_colour


@register("VISUALIZERS")
class ThinkingVisualizer(SegLocalVisualizer):
    """mmseg's visualizer without class names in the picture, but with the account of thinking.

    Image, label map (where there is one) and prediction stand side by side. A whole image is framed
    in the colour of its stage; beside sliding windows stands a map of their stages and entropies.
    Where tokens were pruned, the image follows once for each pruning, with those left. A caption
    gives stages, entropy and GMACs.

    Args:
        name: As in mmseg's ``SegLocalVisualizer``.
        *args: As there.
        min_height: Smaller images are enlarged to at least this many pixels.
        **kwargs: As there.
    """

    def __init__(self, name: str = "visualizer", *args, min_height: int = 256, **kwargs):
        super().__init__(name, *args, **kwargs)
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
        """Draws a result and shows or saves it.

        Args:
            name: Name of the picture.
            image: (H, W, 3) RGB.
            data_sample: Labels, prediction and the account of thinking.
            draw_gt: Whether to draw the label map.
            draw_pred: Whether to draw the prediction.
            show: Whether to open a window.
            wait_time: How long, in seconds; 0 waits for a key.
            out_file: Where to save it; None saves through the visualization backends.
            step: Step it is saved under.
            with_labels: Whether to write class names on the regions, as mmseg does (slow).
            with_image: Whether to show the image beside them.
        """
        drawn = self.paint(image, data_sample, draw_gt, draw_pred, with_labels, with_image)
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(mmcv.rgb2bgr(drawn), out_file)
        else:
            self.add_image(name, drawn, step)

    def paint(
        self,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        with_labels: bool = False,
        with_image: bool = True,
    ) -> np.ndarray:
        """Draws a result.

        Args:
            image: (H, W, 3) RGB.
            data_sample: Labels, prediction and the account of thinking.
            draw_gt: Whether to draw the label map.
            draw_pred: Whether to draw the prediction.
            with_labels: Whether to write class names on the regions.
            with_image: Whether to show the image beside them.

        Returns:
            (H', W', 3) RGB, all panels side by side, with the caption.
        """
        panels = [image] if with_image else []
        meta = (self.dataset_meta.get("classes"), self.dataset_meta.get("palette"))
        for wanted, field in ((draw_gt, "gt_sem_seg"), (draw_pred, "pred_sem_seg")):
            if wanted and data_sample is not None and field in data_sample:
                regions = getattr(data_sample, field).cpu()
                panels.append(self._draw_sem_seg(image, regions, *meta, with_labels))
        panels = [self._enlarge(panel) for panel in panels or [image]]
        thinks = data_sample is not None and "exit_stage" in data_sample
        if (
            thinks and len(data_sample.windows.unique(dim=0)) > 1
        ):  # views of a whole image share one
            panels.append(draw_window_map(self._enlarge(image), data_sample))
        elif thinks:
            panels[-1] = _frame(panels[-1], stage_colour(int(data_sample.exit_stage.max())))
        if thinks and "kept_tokens" in data_sample:
            panels.append(self._enlarge(_kept_tokens(image, data_sample)))
        drawn = np.concatenate(panels, axis=1)
        if thinks:
            drawn = np.concatenate((drawn, _caption(data_sample, drawn.shape[1])), axis=0)
        return drawn

    def _enlarge(self, panel: np.ndarray) -> np.ndarray:
        factor = max(1, -(-self.min_height // panel.shape[0]))
        return np.repeat(np.repeat(panel, factor, axis=0), factor, axis=1)


def _frame(panel: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    height, width = panel.shape[:2]
    return cv2.rectangle(panel.copy(), (1, 1), (width - 2, height - 2), colour, 2)


def _kept_tokens(image: np.ndarray, sample: SegDataSample) -> np.ndarray:
    windows = sample.windows if sample.kept_tokens.ndim == 4 else None
    drawn = draw_kept_tokens(
        image, sample.kept_tokens, sample.patch_size, windows, sample.get("img_shape")
    )
    return drawn[:, image.shape[1] :]


def _caption(sample: SegDataSample, width: int) -> np.ndarray:
    caption = np.full((28, width, 3), 255, np.uint8)
    exits = sample.exit_stage.reshape(-1).tolist()
    text = f"{_describe(exits)}, H {_last_entropy(sample):.3f}, {sample.gmacs:.3g} GMACs"
    font, black = cv2.FONT_HERSHEY_SIMPLEX, (0, 0, 0)
    return cv2.putText(caption, text, (6, 20), font, 0.5, black, 1, cv2.LINE_AA)


def _describe(exits: list[int]) -> str:
    if len(exits) == 1:
        return f"stopped after stage {exits[0]}"
    stages = sorted(set(exits))
    return "windows by stage " + ", ".join(f"{s}: {exits.count(s)}" for s in stages)


def _last_entropy(sample: SegDataSample) -> float:
    """Mean over the windows of the entropy at which they stopped, in nats."""
    entropy = sample.gate_entropy.reshape(-1, sample.gate_entropy.shape[-1])
    exits = sample.exit_stage.reshape(-1, 1)
    return float(entropy.gather(1, exits).mean())
