"""Test-time augmentation keeps account of thinking."""

import numpy as np
import pytest
import torch
from helpers.builders import LINEAR, SLIDE, batch, segmentor

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


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("test_cfg", [dict(mode="whole"), SLIDE], ids=["whole", "slide"])
@pytest.mark.parametrize("size", [(32, 44), (50, 61)], ids=["same size", "resized"])
@torch.no_grad()
def test_views_that_agree_give_what_one_gives(channels, test_cfg, size):
    head = LINEAR if channels > 1 else dict(LINEAR, num_classes=2, out_channels=1, threshold=0.4)
    module = segmentor(RandomGate(0.5, seed=0), head=head, test_cfg=test_cfg)
    images, data_samples = batch(1, (32, 44))
    data_samples[0].set_metainfo(dict(ori_shape=size))
    one = module.predict(images, [data_samples[0].clone()])[0]
    assert one.pred_sem_seg.data.float().mean() > 0
    merged = ThinkingTTAModel(module=module).merge_preds([[one.clone() for _ in range(3)]])[0]
    assert torch.equal(merged.pred_sem_seg.data, one.pred_sem_seg.data)
    a, b = (
        x.seg_logits.data if channels == 1 else x.seg_logits.data.softmax(0) for x in (one, merged)
    )
    torch.testing.assert_close(a, b)


@torch.no_grad()
def test_views_that_disagree_are_averaged():
    module = segmentor(head=dict(LINEAR, num_classes=2, out_channels=1, threshold=0.3))
    views = [module.predict(*batch(1, (32, 44)))[0] for _ in range(2)]
    views[0].seg_logits.data.fill_(0.9)
    views[1].seg_logits.data.fill_(0.1)
    merged = ThinkingTTAModel(module=module).merge_preds([views])[0]
    torch.testing.assert_close(merged.seg_logits.data, torch.full((1, 32, 44), 0.5))
    assert (merged.pred_sem_seg.data == 1).all()
