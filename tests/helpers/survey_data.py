"""Small data sets, with faults where wanted."""

import numpy as np
from mmseg.datasets import BaseSegDataset
from PIL import Image

from tvit_seg.datasets.survey import survey_of

SIZE = (8, 10)
CLASSES = ("road", "car", "sky")


def save(root, name, label=(0,), image=True, size=SIZE, ending=".png"):
    """An image and a label with these values in turn; either may be left out."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if image:
        Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(root / f"images/{name}{ending}")
    if label is not None:
        values = np.resize(np.array(label, np.uint8), size)
        Image.fromarray(values).save(root / f"labels/{name}.png")


def settings(root, **kwargs):
    prefix = dict(img_path="images", seg_map_path="labels")
    defaults = dict(data_root=str(root), data_prefix=prefix, metainfo=dict(classes=CLASSES))
    return dict(dict(defaults, img_suffix=".png", seg_map_suffix=".png"), **kwargs)


def survey(root, **kwargs):
    return survey_of(BaseSegDataset(**settings(root, lazy_init=True, **kwargs))).run()
