"""CamVid with the usual 11 classes."""

from mmseg.datasets import BaseSegDataset

from ..registry import register


@register("DATASETS")
class CamVidDataset(BaseSegDataset):
    """Road scenes, 11 classes; 255 is ignored.

    Images are ``<img_path>/NAME.jpg``, labels ``<seg_map_path>/NAME.png`` with one class index per
    pixel.

    Args:
        img_suffix: End of the image names.
        seg_map_suffix: End of the label names.
        reduce_zero_label: Whether label 0 is ignored and all others count one less.
        **kwargs: Arguments of ``BaseSegDataset``.
    """

    METAINFO = {
        "classes": (
            "sky",
            "building",
            "pole",
            "road",
            "pavement",
            "tree",
            "sign",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
        ),
        "palette": [
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    }

    def __init__(
        self,
        img_suffix: str = ".jpg",
        seg_map_suffix: str = ".png",
        reduce_zero_label: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            reduce_zero_label=reduce_zero_label,
            **kwargs,
        )
