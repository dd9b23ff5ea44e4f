"""Single thinking stages as plain models of timm and mmseg."""

import pytest
import timm
import torch
from helpers.builders import classifier, segmentor
from helpers.contracts import close
from helpers.sources import same, vit
from helpers.todays import KINDS, randomize
from mmseg.registry import MODELS
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from tvit_seg import FixedGate, ThinkingSwin, ThinkingViT, convert_state_dict
from tvit_seg.errors import CheckpointError
from tvit_seg.weights.convert import to_mmseg
from tvit_seg.weights.stage import extract_stage

STAGES = ((1, 2, 4), (2, 4, 8), (4, 8, 16))


def swin(**kwargs):
    options = dict(embed_dims=32, depths=(2, 2, 2), window_size=4)
    model = ThinkingSwin(**{**options, "thinking_stages": STAGES, "num_classes": 10, **kwargs})
    for weight in model.parameters():  # biases and norms too
        torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def extracted(build, model, *args, **kwargs):
    """A plain model of timm with the weights of a stage, and its options."""
    weights, options = extract_stage(model.state_dict(), *args, **kwargs)
    plain = build(**options).eval()
    plain.load_state_dict(weights)
    return plain, options


@torch.no_grad()
def test_the_first_stage_as_a_timm_model():
    model = classifier()
    plain, options = extracted(VisionTransformer, model, 0, head_dim=8)
    assert options["embed_dim"] == 16
    images = torch.randn(3, 3, 32, 32)
    close(plain(images), model.think(images, FixedGate(0)).logits)


@torch.no_grad()
def test_a_later_stage_lacks_recycled_tokens_only():
    model = classifier()
    plain, _ = extracted(VisionTransformer, model, 1, head_dim=8)
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


@torch.no_grad()
def test_the_first_stage_of_a_vit_of_today_as_a_timm_model():
    model = randomize(vit(**KINDS["clip"], qk_norm=True))
    plain, options = extracted(VisionTransformer, model, 0, head_dim=16, thinking_stages=(2, 4))
    assert options["reg_tokens"] == 2
    images = torch.randn(3, 3, 64, 64)
    close(plain(images), model.think(images, FixedGate(0)).logits)


@torch.no_grad()
def test_swin_the_first_stage_as_a_timm_model():
    model = swin()
    plain, options = extracted(SwinTransformer, model, 0, thinking_stages=STAGES)
    assert (options["embed_dim"], options["img_size"]) == (8, 64)
    images = torch.randn(3, 3, 64, 64)
    close(plain(images), model.think(images, FixedGate(0)).logits)


@pytest.mark.parametrize("stage", [1, 2])
@torch.no_grad()
def test_swin_a_later_stage_lacks_recycled_tokens_only(stage):
    model = swin()
    plain, _ = extracted(SwinTransformer, model, stage, thinking_stages=STAGES)
    images = torch.randn(2, 3, 64, 64)
    gate = FixedGate(stage)
    assert (plain(images) - model.think(images, gate).logits).abs().max() > 1e-3
    for recycle in model.recycle:
        recycle.scale.zero_()
    close(plain(images), model.think(images, gate).logits)


@torch.no_grad()
def test_swin_timms_swin_is_the_first_stage_of_a_wider_one():
    options = dict(img_size=64, depths=(2, 2, 2), window_size=4, num_classes=10)
    theirs = SwinTransformer(embed_dim=16, num_heads=(2, 4, 8), **options).eval()
    stages = ((2, 4, 8), (4, 8, 16))
    model = swin(thinking_stages=stages)
    model.load_state_dict(convert_state_dict(theirs.state_dict(), model), strict=False)
    weights, found = extract_stage(model.state_dict(), 0, thinking_stages=stages)
    same(weights, dict(theirs.state_dict()))
    assert (found["embed_dim"], found["num_heads"]) == (16, (2, 4, 8))
    images = torch.randn(2, 3, 64, 64)
    close(model.think(images, FixedGate(0)).logits, theirs(images))


@torch.no_grad()
def test_swin_the_first_stage_as_an_mmseg_model():
    model = swin(always_partition=True)
    weights, options = extract_stage(model.state_dict(), 0, thinking_stages=STAGES, maps=True)
    plain = MODELS.build(
        dict(
            type="mmseg.SwinTransformer",
            embed_dims=options["embed_dim"],
            strides=(4, 2, 2),
            out_indices=(0, 1, 2),
            **{key: options[key] for key in ("depths", "num_heads", "window_size")},
        )
    )
    plain.eval()  # returns nothing
    missing, unexpected = plain.load_state_dict(to_mmseg(weights), strict=False)
    assert not unexpected
    assert all(name.endswith("relative_position_index") for name in missing)
    images = torch.randn(2, 3, 64, 64)
    features = model.think(images, FixedGate(0)).features
    for theirs, ours in zip(plain(images), features, strict=True):
        close(theirs, ours[:, : theirs.shape[1]])


def test_refused_stages():
    weights = swin().state_dict()
    with pytest.raises(ValueError, match=r"stage must be in \[0, 2\]"):
        extract_stage(weights, 3, thinking_stages=STAGES)
    with pytest.raises(CheckpointError, match="name thinking_stages"):
        extract_stage(weights, 0)
    with pytest.raises(
        CheckpointError, match="stage 0 reads 8 channels of patches normalised over"
    ):
        extract_stage(weights, 0, thinking_stages=STAGES, slicing="leading")
    with pytest.raises(CheckpointError, match="no mlp_layer"):
        extract_stage(vit(mlp_layer="SwiGLU").state_dict(), 0, head_dim=16)
    weights = swin(thinking_stages=((2, 2, 4), (2, 4, 8), (4, 8, 16))).state_dict()
    with pytest.raises(CheckpointError, match=r"stage 0 has levels of \[16, 16, 32\] channels"):
        extract_stage(weights, 0, thinking_stages=((2, 2, 4), (2, 4, 8), (4, 8, 16)))
