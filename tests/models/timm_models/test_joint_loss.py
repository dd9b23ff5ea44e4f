"""The joint loss around timm's criteria."""

import pytest
import torch
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

from tvit_seg.models.timm_models import JointLoss


@pytest.mark.parametrize(
    ("criterion", "target"),
    [
        (LabelSmoothingCrossEntropy(0.1), torch.tensor([0, 3])),
        (SoftTargetCrossEntropy(), torch.tensor([[0.3, 0.7, 0, 0], [0, 0, 1.0, 0]])),
        (BinaryCrossEntropy(), torch.tensor([1, 2])),
    ],
)
def test_it_is_the_weighted_sum(criterion, target):
    first, last = torch.randn(2, 2, 4)
    expected = 0.2 * criterion(first, target) + 0.8 * criterion(last, target)
    joint = JointLoss(criterion, [0.2, 0.8])
    torch.testing.assert_close(joint([first, last], target), expected)
    torch.testing.assert_close(joint(last, target), criterion(last, target))
    equal = JointLoss(criterion)([first, last], target)
    torch.testing.assert_close(equal, (criterion(first, target) + criterion(last, target)) / 2)


def test_weights_go_with_the_stages():
    joint = JointLoss(torch.nn.CrossEntropyLoss(), [1.0])
    with pytest.raises(ValueError, match="loss_weights must be a list of 2"):
        joint([torch.zeros(1, 2)] * 2, torch.tensor([0]))
