"""Models besides the plain ViT segmentor, each as files of torch.export."""

import pytest
import torch
from helpers.builders import segmentor
from helpers.deployment import CFG, FCN, GATE, PRUNING, SWIN, pictures, swin
from mmengine.config import Config
from mmseg.registry import MODELS

from tvit_seg.deploy import export
from tvit_seg.deploy.pt2_file import write_pt2
from tvit_seg.errors import ExportError


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

    monkeypatch.setattr("tvit_seg.deploy.export.write_pt2", write_wrong)
    with pytest.raises(ExportError, match="is off by"):
        export(model, CFG, tmp_path, pictures(), format="pt2")
    assert not (tmp_path / "manifest.json").exists()


def test_an_export_that_fails_half_way_leaves_no_manifest(tmp_path, monkeypatch):
    model = segmentor(dict(type="FixedGate", stage=0), backbone=dict(num_layers=1))
    export(model, CFG, tmp_path, pictures(), format="pt2")

    def interrupted(program, path):
        raise KeyboardInterrupt

    monkeypatch.setattr("tvit_seg.deploy.export.write_pt2", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(model, CFG, tmp_path, pictures(), format="pt2")
    assert not (tmp_path / "manifest.json").exists()


def test_a_cascade_is_refused(tmp_path):
    heads = [dict(FCN, in_channels=16), dict(FCN, type="OCRHead", ocr_channels=4)]
    for head in heads:
        head.pop("num_convs"), head.pop("concat_input")
    model = MODELS.build(
        dict(type="CascadeEncoderDecoder", num_stages=2, backbone=dict(SWIN, gate=GATE),
             decode_head=heads, test_cfg=dict(mode="whole"))
    )  # fmt: skip
    with pytest.raises(ExportError, match="CascadeEncoderDecoder has a cascade of decode heads"):
        export(model.eval(), CFG, tmp_path, pictures())


def test_grey_images_are_refused(tmp_path):
    model = segmentor(GATE, backbone=dict(in_channels=1))
    with pytest.raises(ExportError, match="reads colour pictures, the model 1 channels"):
        export(model, CFG, tmp_path, pictures())


def test_a_config_without_test_data(tmp_path):
    with pytest.raises(ExportError, match="the config has no test_dataloader"):
        export(segmentor(GATE), Config(dict()), tmp_path, pictures(), format="pt2")


class Frozen(torch.nn.Module):
    """A layer that takes the number of images for a number."""

    def forward(self, features):
        return (features[0].reshape(len(features[0]), -1).reshape(features[0].shape),)


def test_a_frozen_batch_ends_the_export(tmp_path):
    model = segmentor(GATE, backbone=dict(num_layers=1))
    model.neck = Frozen()
    with pytest.raises(ExportError, match="froze the batch at 2 images"):
        export(model, CFG, tmp_path, pictures(), format="pt2")
