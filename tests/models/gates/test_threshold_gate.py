import pytest
import torch
from helpers.builders import classifier

from tvit_seg import EntropyGate, PixelEntropyGate
from tvit_seg.models.gates import ThresholdGate


class Brightness(ThresholdGate):
    """Dark images stop."""

    def entropy(self, output):
        return output.images.mean(dim=(1, 2, 3))


def test_a_gate_that_measures_its_own_way():
    images = torch.tensor([0.1, 0.9])[:, None, None, None].expand(2, 3, 32, 32)
    thought = classifier(Brightness(0.5)).think(images)
    assert thought.exit_stage.tolist() == [0, 1]
    assert "threshold=0.5" in repr(Brightness(0.5))


def test_known_gates_are_such():
    assert issubclass(EntropyGate, ThresholdGate)
    assert issubclass(PixelEntropyGate, ThresholdGate)


@pytest.mark.parametrize("threshold", [-1, float("nan"), "a", True])
def test_bad_thresholds(threshold):
    with pytest.raises(ValueError, match="must be a number >= 0"):
        Brightness(threshold)
