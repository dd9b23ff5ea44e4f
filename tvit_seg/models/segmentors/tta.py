"""Test-time augmentation that records exits and cost."""

import torch
from mmseg.models import SegTTAModel
from mmseg.structures import SegDataSample

from ...registry import register


@register("MODELS")
class ThinkingTTAModel(SegTTAModel):
    """mmseg's ``SegTTAModel``, with the exits of all views and the sum of their GMACs."""

    def merge_preds(self, data_samples_list: list[list[SegDataSample]]) -> list[SegDataSample]:
        """Merge the views of each image.

        Args:
            data_samples_list: For each image, the results of its views.

        Returns:
            One data sample for each image; ``exit_stage``, ``gate_entropy`` and ``windows`` have a
            row for each window of each view, ``kept_tokens`` are left out.
        """
        records = [
            dict(
                exit_stage=torch.cat([v.exit_stage.reshape(-1) for v in views]),
                gate_entropy=torch.cat(
                    [v.gate_entropy.reshape(-1, v.gate_entropy.shape[-1]) for v in views]
                ),
                windows=torch.cat([_unflip(v) for v in views]),
                gmacs=sum(v.gmacs for v in views),
            )
            for views in data_samples_list
        ]
        merged = super().merge_preds(data_samples_list)
        for sample, record in zip(merged, records, strict=True):
            sample.pop("kept_tokens", None)  # of one view only
            for name, value in record.items():
                sample.set_field(value, name)
        return merged


def _unflip(view: SegDataSample) -> torch.Tensor:
    """Windows (W, 4) in the coordinates of the unflipped image."""
    top, left, bottom, right = view.windows.unbind(1)
    if view.metainfo.get("flip"):
        if view.metainfo["flip_direction"] == "horizontal":
            left, right = 1 - right, 1 - left
        else:
            top, bottom = 1 - bottom, 1 - top
    return torch.stack((top, left, bottom, right), dim=1)
