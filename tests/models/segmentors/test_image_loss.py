"""What the label map says about the whole image."""

import pytest
import torch

from tvit_seg.models.segmentors import ImageLoss
from tvit_seg.models.segmentors.image_loss import class_shares

LABELS = torch.tensor([[[0, 0], [0, 2]], [[1, 255], [255, 255]], [[255, 255], [255, 255]]])


def test_class_shares():
    shares = class_shares(LABELS, 3)
    assert shares.tolist() == [[0.75, 0, 0.25], [0, 1, 0], [0, 0, 0]]


def test_more_pixels_than_float32_counts():
    labels = torch.zeros(1, 4200, 4200, dtype=torch.uint8)
    labels[0, 0, 0] = 1
    shares = class_shares(labels, 2)[0]
    assert shares.tolist() == pytest.approx([1 - 1 / 4200**2, 1 / 4200**2], abs=1e-7)


def test_presence():
    logits = torch.randn(3, 3)
    target = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits[:2], target)
    # the image without labels counts as 0
    torch.testing.assert_close(ImageLoss("presence", 3.0)(logits, LABELS), 3 * bce * 2 / 3)


def test_histogram():
    logits = torch.randn(3, 3)
    log_prob = logits.log_softmax(1)
    expected = -(0.75 * log_prob[0, 0] + 0.25 * log_prob[0, 2] + log_prob[1, 1]) / 3
    torch.testing.assert_close(ImageLoss("histogram")(logits, LABELS), expected)


@pytest.mark.parametrize("target", ["presence", "histogram"])
def test_no_labels_at_all(target):
    logits = torch.randn(1, 3, requires_grad=True)
    loss = ImageLoss(target)(logits, LABELS[2:])
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()
