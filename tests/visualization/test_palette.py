"""Every class has a colour of its own."""

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.datasets import ADE20KDataset, COCOStuffDataset, MapillaryDataset_v2
from mmseg.structures import SegDataSample

from tvit_seg.visualization import ThinkingVisualizer
from tvit_seg.visualization.palette import distinct_palette

PALETTES = {
    cls.__name__: cls.METAINFO["palette"]
    for cls in (ADE20KDataset, COCOStuffDataset, MapillaryDataset_v2)
}


@pytest.mark.parametrize("name", PALETTES)
def test_repeated_colours_are_replaced(name):
    palette = np.array(PALETTES[name])
    found = np.array(distinct_palette(palette))
    assert len(np.unique(palette, axis=0)) < len(palette) == len(np.unique(found, axis=0))
    changed = np.flatnonzero((found != palette).any(1))
    assert len(changed) == len(palette) - len(np.unique(palette, axis=0))
    for index in changed:
        others = np.delete(found, index, axis=0)
        assert np.linalg.norm(others - found[index], axis=1).min() > 30


def test_other_palettes_stay():
    for palette in ([[1, 2, 3], [3, 2, 1]], [(9, 9, 9)], []):
        assert distinct_palette(palette) == [list(colour) for colour in palette]


def test_pictures():
    visualizer = ThinkingVisualizer(min_height=1, alpha=1.0)
    visualizer.dataset_meta = dict(classes=("a", "b"), palette=[[9, 9, 9]] * 2)
    sample = SegDataSample(pred_sem_seg=PixelData(data=torch.tensor([[[0, 1]]])))
    drawn = visualizer.paint(np.zeros((1, 2, 3), np.uint8), sample, with_image=False)
    assert drawn[0, 0].tolist() == [9, 9, 9] != drawn[0, 1].tolist()
