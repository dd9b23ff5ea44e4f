"""Label maps of a batch in training."""

from collections.abc import Sequence

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.nn import functional as F

from ...errors import DataError


def require_labels(samples: Sequence[SegDataSample]) -> None:
    """Raise DataError if images come without their label maps."""
    if any("gt_sem_seg" not in sample for sample in samples):
        raise DataError(
            "images come without label maps (gt_sem_seg): the pipeline of the training dataset "
            "needs LoadAnnotations"
        )


def pad_labels(
    samples: Sequence[SegDataSample], margin: tuple[int, int, int, int], ignore_index: int
) -> list[SegDataSample]:
    """Copy samples and pad their label maps.

    Args:
        samples: With ``gt_*``, (1, H, W) each.
        margin: Pixels on the left, right, top and bottom.
        ignore_index: Label of these pixels.
    """
    padded = [sample.clone() for sample in samples]
    for sample in padded:
        for name in [name for name in sample.keys() if name.startswith("gt_")]:  # noqa: SIM118
            labels = F.pad(sample.get(name).data, margin, value=ignore_index)
            sample.set_data({name: PixelData(data=labels)})
    return padded
