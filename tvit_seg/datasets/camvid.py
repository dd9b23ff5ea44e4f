"""CamVid with the usual 11 classes."""

from mmseg.datasets import BaseSegDataset

from ..registry import register

_COLOURS = {
    "sky": [128, 128, 128],
    "building": [128, 0, 0],
    "pole": [192, 192, 128],
    "road": [128, 64, 128],
    "pavement": [60, 40, 222],
    "tree": [128, 128, 0],
    "sign": [192, 128, 128],
    "fence": [64, 64, 128],
    "car": [64, 0, 128],
    "pedestrian": [64, 64, 0],
    "bicyclist": [0, 128, 192],
}


@register("DATASETS")
class CamVidDataset(BaseSegDataset):
    """Road scenes, 11 classes; 255 is ignored.

    Images are ``<img_path>/NAME.jpg``, labels ``<seg_map_path>/NAME.png`` with one class index per
    pixel.
    """

    METAINFO = dict(classes=tuple(_COLOURS), palette=list(_COLOURS.values()))
