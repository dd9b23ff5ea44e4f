"""Test-time augmentation keeps account of thinking."""

import numpy as np
import pytest
import torch
from helpers.builders import SLIDE, batch, segmentor

from tvit_seg import RandomGate
from tvit_seg.models.segmentors import ThinkingTTAModel
from tvit_seg.visualization import ThinkingVisualizer


@torch.no_grad()
def test_views_are_listed_and_added_up():
    module = segmentor(RandomGate(0.5, seed=0), test_cfg=SLIDE)
    images, data_samples = batch(1, (32, 44))
    flipped = data_samples[0].clone()
    flipped.set_metainfo(dict(flip=True, flip_direction="horizontal"))
    views = [module.predict(images, data_samples)[0]]
    views.append(module.predict(images.flip(-1), [flipped])[0])
    expected = sum(view.gmacs for view in views)
    merged = ThinkingTTAModel(module=module).merge_preds([views])[0]
    assert merged.exit_stage.shape == (4,)
    assert merged.gate_entropy.shape == (4, 2)
    assert merged.gmacs == expected
    # the first window of the flipped view lies at the right border of the image
    torch.testing.assert_close(merged.windows[2], merged.windows[1])
    assert merged.pred_sem_seg.data.shape == (1, 32, 44)


@pytest.mark.parametrize("test_cfg", [dict(mode="whole"), SLIDE], ids=["whole", "slide"])
@torch.no_grad()
def test_views_of_a_pruned_model_are_painted(test_cfg):
    pruning = dict(type="DynamicPruning", locations=(0, 1), keep_ratio=0.7)
    backbone = dict(img_size=64, patch_size=4, pruning=pruning)
    module = segmentor(RandomGate(0.5, seed=0), test_cfg=test_cfg, backbone=backbone)
    images, data_samples = batch(1, (32, 44))
    views = [module.predict(images, [data_samples[0].clone()])[0] for _ in range(2)]
    merged = ThinkingTTAModel(module=module).merge_preds([views])[0]
    assert "kept_tokens" not in merged
    visualizer = ThinkingVisualizer()
    visualizer.dataset_meta = dict(classes=tuple("abcde"), palette=[[i] * 3 for i in range(5)])
    assert visualizer.paint(np.zeros((32, 44, 3), np.uint8), merged).any()
