"""Gates that compare an entropy with a threshold."""

import torch
from helpers.builders import classifier

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
