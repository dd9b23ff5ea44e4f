"""Back to the authors' layout, and single stages as plain models."""

import pytest
import timm
import torch
from helpers.builders import LINEAR, MASK, classifier, segmentor
from helpers.contracts import close
from mmseg.registry import MODELS
from timm.models.vision_transformer import VisionTransformer

from tvit_seg import FixedGate, ThinkingViT, convert_state_dict
from tvit_seg.errors import CheckpointError
from tvit_seg.weights.convert import to_authors, to_mmseg
from tvit_seg.weights.stage import extract_stage

REFERENCES = [
    "thinkingvit_1h-2h",
    "dynamicvit_1h-2h",
    "segmenter_linear_1h-2h",
    "segmenter_mask_1h-2h",
]


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("stages", [(2, 4), (1, 2, 4)])
@pytest.mark.parametrize("head", [None, LINEAR, MASK], ids=["classifier", "linear", "mask"])
def test_ours_to_theirs_and_back(stages, head):
    backbone = dict(thinking_stages=stages)
    model = segmentor(head=head, backbone=backbone) if head else classifier(backbone=backbone)
    theirs = to_authors(model.state_dict())
    assert not any("recycle" in name or name.startswith("backbone") for name in theirs)
    same(convert_state_dict(theirs, model), model.state_dict())
    if head is None:  # as their model declares it
        assert theirs["proj_layer.weight"].shape == (32, 8 * stages[0])


@pytest.mark.parametrize("name", REFERENCES)
def test_theirs_to_ours_and_back(reference, name):
    theirs = reference(name).weights
    back = to_authors(convert_state_dict(theirs))
    used = {k: v for k, v in theirs.items() if k in back}
    assert set(theirs) - set(used) <= {"alpha.1", "alpha.2", "alpha.3"}  # scalars of no stage
    same(back, used)


def test_other_heads_have_no_place():
    weights = {"decode_head.convs.0.weight": torch.zeros(1)}
    weights |= {f"backbone.{k}": v for k, v in classifier().backbone.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"no place for decode_head\.convs\.0\.weight"):
        to_authors(weights)


@torch.no_grad()
def test_the_first_stage_as_a_timm_model():
    model = classifier()
    weights, options = extract_stage(model.state_dict(), 0, head_dim=8)
    plain = VisionTransformer(**options).eval()
    plain.load_state_dict(weights)
    assert options["embed_dim"] == 16
    images = torch.randn(3, 3, 32, 32)
    close(plain(images), model.think(images, FixedGate(0)).logits)


@torch.no_grad()
def test_a_later_stage_lacks_recycled_tokens_only():
    model = classifier()
    weights, options = extract_stage(model.state_dict(), 1, head_dim=8)
    plain = VisionTransformer(**options).eval()
    plain.load_state_dict(weights)
    images = torch.randn(3, 3, 32, 32)
    assert (plain(images) - model(images)).abs().max() > 1e-3
    model.backbone.recycle[0].scale.zero_()
    close(plain(images), model(images))


@torch.no_grad()
def test_the_first_stage_as_an_mmseg_model():
    model = segmentor()
    weights, options = extract_stage(model.state_dict(), 0, head_dim=8)
    plain = MODELS.build(
        dict(
            type="mmseg.VisionTransformer",
            img_size=(32, 32),
            patch_size=8,
            patch_bias=True,
            embed_dims=options["embed_dim"],
            num_layers=options["depth"],
            num_heads=options["num_heads"],
            final_norm=True,
        )
    )
    plain.eval()
    plain.load_state_dict(to_mmseg(weights))
    images = torch.randn(2, 3, 32, 32)
    close(plain(images)[0], model.backbone.think(images, FixedGate(0)).features[0][:, :16])


@torch.no_grad()
def test_timms_deit_tiny_is_the_first_stage_of_3h_6h(tmp_path):
    tiny = timm.create_model("deit_tiny_patch16_224", pretrained=False).eval()
    torch.nn.init.normal_(tiny.head.weight)
    torch.save({"model": tiny.state_dict()}, tmp_path / "deit_tiny.pth")
    pretrained = dict(type="Pretrained", checkpoint=str(tmp_path / "deit_tiny.pth"))
    model = ThinkingViT(thinking_stages=(3, 6), num_classes=1000, init_cfg=pretrained).eval()
    model.init_weights()
    images = torch.randn(2, 3, 224, 224)
    close(model.think(images, FixedGate(0)).logits, tiny(images))
    weights, _ = extract_stage(model.state_dict(), 0)
    same(weights, dict(tiny.state_dict()))


def test_no_such_stage():
    with pytest.raises(ValueError, match=r"stage=2 must lie in \[0, 1\]"):
        extract_stage(classifier().state_dict(), 2, head_dim=8)
