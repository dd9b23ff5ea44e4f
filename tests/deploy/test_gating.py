import pytest
import torch
from helpers.builders import segmentor
from torch import Tensor

from tvit_seg import BudgetGate, EntropyGate, FixedGate, PixelEntropyGate, RandomGate
from tvit_seg.deploy.gating import check_gate, describe_gate, last_stage
from tvit_seg.deploy.graphs import build_graphs
from tvit_seg.errors import ExportError
from tvit_seg.models.gates import ThresholdGate


class MarginGate(ThresholdGate):
    """A gate of one's own that measures differently."""

    def entropy(self, output) -> Tensor:
        best = output.logits.topk(2).values
        return best[:, 1] - best[:, 0]


class OddGate(EntropyGate):
    """A gate of one's own that decides differently."""

    def stop(self, output, entropy: Tensor) -> Tensor:
        return entropy.sort().values < self.threshold


@pytest.mark.parametrize(
    "gate", [EntropyGate(0.1), PixelEntropyGate(0.1), FixedGate(-1), MarginGate(0.1)]
)
def test_thresholds_can_be_exported(gate):
    check_gate(gate)


@pytest.mark.parametrize("gate", [BudgetGate(EntropyGate(0.1), 0.5), RandomGate(0.5), OddGate(0.1)])
def test_python_cannot(gate):
    name = type(gate).__name__
    with pytest.raises(ExportError, match=f"{name} decides in Python.*EntropyGate.*--stage"):
        check_gate(gate)


def test_description():
    assert describe_gate(EntropyGate(0.5, topk=3)) == dict(
        type="EntropyGate", threshold=0.5, topk=3, use_sigmoid=False, reads="image"
    )
    assert describe_gate(PixelEntropyGate(1)) == dict(
        type="PixelEntropyGate", threshold=1.0, reads="pixels"
    )
    assert describe_gate(FixedGate(-1)) == dict(type="FixedGate", stage=-1, reads="image")


@pytest.mark.parametrize(("gate", "last"), [(FixedGate(0), 0), (FixedGate(-1), 1), (None, 1)])
def test_last_stage(gate, last):
    assert last_stage(segmentor(gate).backbone) == last


class ImageGate(ThresholdGate):
    """A gate of one's own that looks at the pixels of the image."""

    def entropy(self, output) -> Tensor:
        return output.images.mean(dim=(1, 2, 3))


def test_a_gate_that_reads_images():
    """Later graphs do not have them."""
    model = segmentor(ImageGate(0.1))
    graph = build_graphs(model, images := torch.randn(2, 3, 32, 32))["stage0"]
    with pytest.raises(ExportError, match="ImageGate cannot be exported: it reads something"):
        graph({"images": images})
