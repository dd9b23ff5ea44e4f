"""Test-time augmentation that keeps the account of thinking."""

import torch
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.structures import SegDataSample

from ...registry import register
from .class_map import class_map


@register("MODELS")
class ThinkingTTAModel(SegTTAModel):
    """mmseg's ``SegTTAModel``; exits of all views are listed, their GMACs added up.

    Views that agree give what one view gives, for a single class too: mmseg takes the sigmoid of
    its probabilities once more, which makes every pixel foreground.
    """

    def merge_preds(self, data_samples_list: list[list[SegDataSample]]) -> list[SegDataSample]:
        """Merge the views of each image.

        Args:
            data_samples_list: For each image, the results of its views.

        Returns:
            One data sample for each image, with mean probabilities (their logarithms for several
            classes) as ``seg_logits``; ``exit_stage``, ``gate_entropy`` and ``windows`` have a row
            for each window of each view, ``kept_tokens`` are left out.
        """
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: list[SegDataSample]) -> SegDataSample:
        logits = torch.stack([view.seg_logits.data for view in views])  # (V, K, H, W)
        if logits.shape[1] == 1:
            scores = logits.mean(dim=0)  # probabilities already
            labels = (scores > self.module.decode_head.threshold).to(scores)
        else:
            scores = logits.log_softmax(dim=1).logsumexp(dim=0) - torch.tensor(len(views)).log()
            labels = class_map(scores)
        merged = views[0]
        merged.pop("kept_tokens", None)  # of one view only
        merged.set_data(dict(seg_logits=PixelData(data=scores)))
        merged.set_data(dict(pred_sem_seg=PixelData(data=labels)))
        entropies = [view.gate_entropy.reshape(-1, view.gate_entropy.shape[-1]) for view in views]
        for name, value in dict(
            gmacs=sum(view.gmacs for view in views),
            windows=torch.cat([_unflip(view) for view in views]),
            exit_stage=torch.cat([view.exit_stage.reshape(-1) for view in views]),
            gate_entropy=torch.cat(entropies),
        ).items():
            merged.set_field(value, name)
        return merged


def _unflip(view: SegDataSample) -> torch.Tensor:
    """Return windows (W, 4) in the coordinates of the unflipped image."""
    top, left, bottom, right = view.windows.unbind(1)
    if view.metainfo.get("flip"):
        if view.metainfo["flip_direction"] == "horizontal":
            left, right = 1 - right, 1 - left
        else:
            top, bottom = 1 - bottom, 1 - top
    return torch.stack((top, left, bottom, right), dim=1)
