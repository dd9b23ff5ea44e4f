"""Overlays that say which stage each image used."""

import cv2
import mmcv
import numpy as np
from mmengine.dist import master_only
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from ..registry import register

# RGB, from cool (stopped early) to warm (thought long)
_STAGE_COLOURS = ((60, 160, 220), (240, 130, 40), (220, 50, 60), (150, 40, 150))


@register("VISUALIZERS")
class ThinkingVisualizer(SegLocalVisualizer):
    """mmseg's visualizer without class names in the picture, but with the account of thinking.

    Image, label map (where there is one) and prediction stand side by side; windows are framed in
    the colour of their stage; a caption gives stages, entropy and GMACs.

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
        panels = [image] if with_image else []
        meta = (self.dataset_meta.get("classes"), self.dataset_meta.get("palette"))
        for wanted, field in ((draw_gt, "gt_sem_seg"), (draw_pred, "pred_sem_seg")):
            if wanted and data_sample is not None and field in data_sample:
                regions = getattr(data_sample, field).cpu()
                panels.append(self._draw_sem_seg(image, regions, *meta, with_labels))
        panels = panels or [image]
        drawn = np.concatenate([self._enlarge(panel) for panel in panels], axis=1)
        if data_sample is not None and "exit_stage" in data_sample:
            drawn = self._tell(drawn, len(panels), data_sample)
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(mmcv.rgb2bgr(drawn), out_file)
        else:
            self.add_image(name, drawn, step)

    def _enlarge(self, panel: np.ndarray) -> np.ndarray:
        factor = max(1, -(-self.min_height // panel.shape[0]))
        return np.repeat(np.repeat(panel, factor, axis=0), factor, axis=1)

    def _tell(self, drawn: np.ndarray, panels: int, sample: SegDataSample) -> np.ndarray:
        """Frames the windows in the last panel and adds the caption below."""
        height, width = drawn.shape[0], drawn.shape[1] // panels
        drawn = np.ascontiguousarray(drawn)
        exits = sample.exit_stage.reshape(-1).tolist()
        for stage, window in zip(exits, sample.windows, strict=True):
            top, left, bottom, right = window.tolist()
            first = (drawn.shape[1] - width + int(left * width) + 1, int(top * height) + 1)
            last = (drawn.shape[1] - width + int(right * width) - 2, int(bottom * height) - 2)
            cv2.rectangle(drawn, first, last, _STAGE_COLOURS[stage % 4], 2)
        caption = np.full((28, drawn.shape[1], 3), 255, np.uint8)
        text = f"{_describe(exits)}, H {_last_entropy(sample):.3f}, {sample.gmacs:.3g} GMACs"
        font, black = cv2.FONT_HERSHEY_SIMPLEX, (0, 0, 0)
        cv2.putText(caption, text, (6, 20), font, 0.5, black, 1, cv2.LINE_AA)
        return np.concatenate((drawn, caption), axis=0)


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
