"""Label maps of windows from mixed stages equal those of the segmentor."""

import pytest
import torch
from helpers.builders import SLIDE, segmentor

from tvit_seg.evaluation.stages import WindowComposer
from tvit_seg.models.segmentors.image_logits import ImageLogits


@pytest.mark.parametrize(
    "metainfo",
    [
        dict(ori_shape=(50, 61)),
        dict(ori_shape=(70, 40)),
        dict(ori_shape=(50, 61), flip=True, flip_direction="horizontal"),
        dict(ori_shape=(47, 61), img_padding_size=(0, 0, 1, 2)),
    ],
    ids=["same size", "resized", "flipped", "padded"],
)
@pytest.mark.parametrize("classes", [1, 5])
def test_any_order_of_choices(metainfo, classes):
    model = segmentor(test_cfg=SLIDE)
    model.decode_head.threshold = 0.5
    windows = model.windows(torch.zeros(1, 3, 50, 61))
    count = len(windows)
    logits = [list(torch.randn(count, classes, 32, 32)) for _ in range(3)]
    composer = WindowComposer(model, logits, windows, metainfo)
    for _ in range(6):
        exits = torch.randint(0, 3, (count,)).tolist()
        parts = torch.stack([logits[stage][w] for w, stage in enumerate(exits)])
        canvas = ImageLogits(parts, lambda x: x, windows)[:][None]
        sample = model.postprocess_result(canvas, None)[0].clone()
        sample.set_metainfo(metainfo)
        expected = model.postprocess_result(canvas, [sample])[0].pred_sem_seg.data[0]
        assert torch.equal(composer.compose(exits), expected)


def test_only_what_changes_is_added_up(monkeypatch):
    model = segmentor(test_cfg=SLIDE)
    windows = model.windows(torch.zeros(1, 3, 50, 61))
    logits = [list(torch.randn(len(windows), 5, 32, 32)) for _ in range(2)]
    composer = WindowComposer(model, logits, windows, dict(ori_shape=(50, 61)))
    areas = []
    update = composer._update
    monkeypatch.setattr(composer, "_update", lambda *area: (areas.append(area), update(*area)))
    exits = [0] * len(windows)
    composer.compose(exits)
    exits[2] = 1
    composer.compose(exits)
    composer.compose(exits)
    assert areas == [(0, 0, 50, 61), tuple(windows.boxes[2].tolist())]
