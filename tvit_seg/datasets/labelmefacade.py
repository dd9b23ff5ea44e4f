"""LabelMeFacade: photos of streets and facades in many cities."""

from mmseg.datasets import BaseSegDataset

from ..registry import register

_COLOURS = {
    "building": [128, 0, 0],
    "car": [128, 0, 128],
    "door": [128, 128, 0],
    "pavement": [128, 128, 128],
    "road": [128, 64, 0],
    "sky": [0, 128, 128],
    "vegetation": [0, 128, 0],
    "window": [0, 0, 128],
}


@register("DATASETS")
class LabelMeFacadeDataset(BaseSegDataset):
    """Unrelated photos, 8 classes; 255 is ignored (https://github.com/cvjena/labelmefacade).

    Images are ``<img_path>/NAME.jpg``, labels ``<seg_map_path>/NAME.png`` with one class index per
    pixel.
    """

    METAINFO = dict(classes=tuple(_COLOURS), palette=list(_COLOURS.values()))
