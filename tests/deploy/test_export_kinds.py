"""Models besides the plain ViT segmentor, each as files of torch.export."""

import pytest
import torch
from builders import segmentor
from deployment import CFG, GATE, PRUNING, pictures, swin

from tvit_seg.deploy import ExportError, export
from tvit_seg.deploy.pt2_file import write_pt2


def test_swin(tmp_path):
    manifest = export(swin(), CFG, tmp_path, pictures(), format="pt2")
    assert manifest["backbone"] == "ThinkingSwin"


def test_swin_for_any_size(tmp_path):
    message = (
        "graphs for any size are not possible: ThinkingSwin treats each image size its own way"
    )
    with pytest.raises(ExportError, match=message):
        export(swin(), CFG, tmp_path, pictures(), any_size=True, format="pt2")


def test_pruned(tmp_path):
    model = segmentor(GATE, backbone=dict(pruning=PRUNING))
    export(model, CFG, tmp_path, pictures(), format="pt2")


def test_a_gate_on_pixels(tmp_path):
    model = segmentor(dict(type="PixelEntropyGate", threshold=1.5), backbone=dict(num_layers=1))
    manifest = export(model, CFG, tmp_path, pictures(), format="pt2")
    assert manifest["gate"]["reads"] == "pixels"


def test_graphs_that_fail_their_check_are_left_without_a_manifest(tmp_path, monkeypatch):
    model = segmentor(dict(type="FixedGate", stage=0), backbone=dict(num_layers=1))

    def write_wrong(program, path):
        with torch.no_grad():
            for weight in program.state_dict.values():
                weight.add_(0.1)
        write_pt2(program, path)

    monkeypatch.setattr("tvit_seg.deploy.exporter.write_pt2", write_wrong)
    with pytest.raises(ExportError, match="is off by"):
        export(model, CFG, tmp_path, pictures(), format="pt2")
    assert not (tmp_path / "manifest.json").exists()


class Frozen(torch.nn.Module):
    """A layer that takes the number of images for a number."""

    def forward(self, features):
        return (features[0].reshape(len(features[0]), -1).reshape(features[0].shape),)


def test_a_frozen_batch_ends_the_export(tmp_path):
    model = segmentor(GATE, backbone=dict(num_layers=1))
    model.neck = Frozen()
    with pytest.raises(ExportError, match="froze the batch at 2 images"):
        export(model, CFG, tmp_path, pictures(), format="pt2")
