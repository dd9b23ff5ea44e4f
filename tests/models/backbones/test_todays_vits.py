"""ThinkingViT with the parts of today's networks: the contract, timm's models, and cuts by hand."""

from collections import Counter

import pytest
import torch
from helpers.contracts import BackboneContract, close
from helpers.todays import DEPTH, HEADS, KINDS, TIMM, randomize, timm_model, under_our_names
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tvit_seg import ThinkingViT, stage_macs
from tvit_seg.errors import CheckpointError, ConfigError
from tvit_seg.models.backbones.arch import ARCHS
from tvit_seg.models.layers.nested import KeyMaskedLinear

SMALL = dict(
    img_size=64,
    embed_dims=64,
    num_layers=3,
    num_heads=4,
    thinking_stages=(2, 4),
    num_classes=10,
    init_values=0.5,
)


def build(kind, **kwargs):
    return ThinkingViT(**{**SMALL, **KINDS[kind], **kwargs}).eval()


class TestRegistersAndRotaryPositions(BackboneContract):
    def build(self, **kwargs):
        return build("dinov3", **kwargs)


class TestGatedPerceptronsAndNorms(BackboneContract):
    num_stages = 3

    def build(self, **kwargs):
        return build("eva", **{"thinking_stages": (1, 3, 4), **kwargs})


class TestPreNormWithoutClassPosition(BackboneContract):
    def build(self, **kwargs):
        return build("clip", **kwargs)


def load(arch, theirs, heads, **kwargs):
    size = theirs.patch_embed.img_size
    options = dict(embed_dims=64 * HEADS, num_heads=HEADS, num_layers=DEPTH, img_size=size)
    ours = ThinkingViT(arch=arch, thinking_stages=heads, **options, **kwargs).eval()
    ours.load_state_dict(under_our_names(theirs), strict=len(heads) == 1)
    return ours


@pytest.mark.parametrize("arch", TIMM)
@torch.no_grad()
def test_full_width_equals_timm(arch):
    theirs = timm_model(arch)
    ours = load(arch, theirs, (HEADS,))
    images = torch.randn(2, 3, *theirs.patch_embed.img_size)
    output = ours.forward_stages(images)[-1]
    wanted = theirs.forward_features(images)
    close(output.tokens, wanted)
    registers = ARCHS[arch].get("reg_tokens", 0)
    close(output.features[-1].flatten(2).transpose(1, 2), wanted[:, 1 + registers :])


def cut(name, value, shape, packed):
    """The leading part of each of q, k and v, of gate and values, and of everything else."""
    count = 3 if ".attn.qkv." in name else 2 if packed and ".mlp.fc1." in name else 1
    parts = value.chunk(count) if count > 1 else [value]
    part = tuple(slice(length // (count if i == 0 else 1)) for i, length in enumerate(shape))
    return torch.cat([x[part] for x in parts])


@pytest.mark.parametrize("arch", TIMM)
@torch.no_grad()
def test_first_stage_equals_a_cut_by_hand(arch):
    """A narrow model of timm's with the leading slices of a wide one."""
    wide, narrow = timm_model(arch), timm_model(arch, heads=1)
    packed, weights = ARCHS[arch].get("mlp_layer") == "SwiGLUPacked", wide.state_dict()
    shapes = {name: value.shape for name, value in narrow.state_dict().items()}
    narrow.load_state_dict(
        {name: cut(name, weights[name], shapes[name], packed) for name in shapes}
    )
    images = torch.randn(2, 3, *wide.patch_embed.img_size)
    output = load(arch, wide, (1, HEADS)).forward_stages(images)[0]
    close(output.tokens, narrow.forward_features(images))


@torch.no_grad()
def test_hidden_channels_of_narrow_stages_are_rounded_down():
    backbone = build("eva", thinking_stages=(1, 3, 4))
    assert backbone.blocks[0].mlp.fc2.in_features == 170  # 64 * 8 / 3
    widths = []
    backbone.blocks[0].mlp.fc2.register_forward_hook(lambda _, x, y: widths.append(x[0].shape[-1]))
    backbone.forward_stages(torch.randn(1, 3, 64, 64))
    assert widths == [170 // 4, 170 * 3 // 4, 170]


@torch.no_grad()
def test_recycled_tokens_are_added_after_the_norm_of_the_embedding():
    backbone, images = build("clip"), torch.randn(2, 3, 64, 64)
    backbone.recycle[0].scale.fill_(0.7)
    first = backbone.forward_stages(images)[0]
    embedding = backbone.embed(images, 1)
    output = backbone.run_stage(1, embedding, first, (64, 64))
    backbone.norm_pre, norm = nn.Identity(), backbone.norm_pre
    close(backbone.run_stage(1, norm(embedding), first, (64, 64)).tokens, output.tokens)


@torch.no_grad()
def test_keys_have_no_bias():
    weights = randomize(build("dinov3", k_bias=True)).state_dict()
    with pytest.raises(CheckpointError, match="set k_bias=True"):
        build("dinov3").load_state_dict(weights)
    backbone, images = randomize(build("dinov3")), torch.randn(2, 3, 64, 64)
    wanted = backbone.forward_stages(images)
    for block in backbone.blocks:
        block.attn.qkv.bias[64:128] = 9.0
    for output, other in zip(backbone.forward_stages(images), wanted, strict=True):
        assert torch.equal(output.tokens, other.tokens)


@pytest.mark.parametrize("kind", ["dinov3", "eva"])
@torch.no_grad()
def test_tokens_rotate_by_their_own_rows(kind):
    """Permuted patches with permuted rows of the table give permuted tokens."""
    backbone = randomize(build(kind))
    prefix, images = backbone.num_prefix_tokens, torch.randn(2, 3, 48, 80)
    x, table = backbone.embed(images, 1), backbone.rotary_table((48, 80))
    assert table.shape == (prefix + 15, 2 * 16)
    order = torch.cat((torch.arange(prefix), prefix + torch.randperm(15)))
    block = backbone.blocks[0]
    close(block(x[:, order], rope=table[order]), block(x, rope=table)[:, order])
    each = table[order].expand(2, 1, -1, -1)  # as a selection for each image
    close(block(x[:, order], rope=each), block(x, rope=table)[:, order])
    assert (block(x[:, order], rope=table) - block(x, rope=table)[:, order]).abs().max() > 1e-3


@torch.no_grad()
def test_registers_are_in_no_map():
    backbone, images = build("dinov3", output_cls_token=True), torch.randn(1, 3, 48, 80)
    output = backbone.forward_stages(images)[1]
    spatial, token = output.features[-1]
    assert output.tokens.shape == (1, 1 + 4 + 15, 64)
    close(spatial.flatten(2).transpose(1, 2), output.tokens[:, 5:])
    close(token, output.tokens[:, 0])


class CountOperators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view:
            self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_blocks_without_new_parts_run_timms_operators():
    theirs = VisionTransformer(img_size=64, embed_dim=64, depth=3, num_heads=4).eval()
    ours = ThinkingViT(**{**SMALL, "init_values": None}).eval()
    x = torch.randn(2, 17, 64)
    counters = []
    for blocks in (theirs.blocks, ours.blocks):
        with CountOperators() as counter:
            for block in blocks:
                block(x)
        counters.append(counter.counts)
    assert counters[0] == counters[1]


@pytest.mark.parametrize("kind", KINDS)
def test_cost_counts_registers_and_gates(kind):
    backbone = build(kind, thinking_stages=(4,), num_classes=0, mlp_ratio=2.5)
    tokens = backbone.num_prefix_tokens + 16
    matrices = 2 if kind == "clip" else 3
    block = tokens * (4 * 64**2 + matrices * 64 * 160) + 2 * tokens**2 * 64
    assert stage_macs(backbone, (64, 64)) == pytest.approx([3 * block + 16 * 16 * 16 * 3 * 64])


@pytest.mark.parametrize("restore", ["recycled", "latest"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_pruning_keeps_registers_and_positions(kind, restore):
    """Equal attention with a mask on all tokens, each with its own rotation."""
    pruning = dict(type="DynamicPruning", locations=(1, 2), keep_ratio=0.7, restore=restore)
    backbone, images = build(kind, pruning=pruning), torch.randn(3, 3, 64, 80)
    prefix = backbone.num_prefix_tokens
    first, output = backbone.forward_stages(images)
    assert output.tokens.shape == (3, prefix + 20, 64)
    assert output.keep_mask.shape == (3, 2, 4, 5)
    assert output.keep_mask.sum(dim=(2, 3)).tolist() == [[14, 9]] * 3
    x = backbone.norm_pre(backbone.embed(images, 1)) + backbone.recycle[0](first.tokens)
    rope, kept = backbone.rotary_table((64, 80)), torch.ones(3, prefix + 20, dtype=bool)
    for index, block in enumerate(backbone.blocks):
        if index > 0:
            kept[:, prefix:] = output.keep_mask[:, index - 1].flatten(1).bool()
        new = block(x, attn_mask=kept[:, None, None], rope=rope)
        x = torch.where(kept[..., None], new, x)
    wanted = backbone.norm(x)
    if restore == "recycled":
        before = torch.nn.functional.pad(first.tokens, (0, 32))
        wanted = torch.where(kept[..., None], wanted, before)
    close(output.tokens, wanted)


def test_pruning_in_training_masks_spatial_keys_only():
    pruning = dict(type="DynamicPruning", locations=(1,), keep_ratio=0.5)
    backbone = build("dinov3", pruning=pruning).train()
    output = backbone.forward_stages(torch.randn(2, 3, 64, 64))[1]
    assert output.keep_mask.shape == (2, 1, 4, 4)
    output.tokens.square().mean().backward()
    assert backbone.reg_token.grad.abs().sum() > 0
    assert backbone.pruning.predictors[0].out_conv[0].weight.grad.abs().sum() > 0


def test_presets_are_defaults():
    backbone = ThinkingViT(arch="dinov3_small", num_layers=1)
    assert backbone.stage_dims == (192, 384)
    assert backbone.reg_token.shape == (1, 4, 384)
    options = dict(num_layers=1, reg_tokens=0, thinking_stages=(2, 6))
    backbone = ThinkingViT(arch="dinov2_small_reg", **options)
    assert backbone.thinking_stages == (2, 6)
    assert backbone.reg_token is None


@torch.no_grad()
def test_presets_in_a_hub_folder(tmp_path):
    model = ThinkingViT(arch="dinov3_small", num_layers=1, num_classes=3).eval()
    model.save_pretrained(tmp_path)
    images = torch.randn(1, 3, 64, 64)
    again = ThinkingViT.from_pretrained(tmp_path).eval()
    close(again.think(images).logits, model.think(images).logits)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (dict(arch="dinov4_small"), "arch must be"),
        (dict(mlp_layer="GluMlp"), "mlp_layer must be"),
        (dict(reg_tokens=-1), "reg_tokens must be"),
        (dict(rope=dict(rope_type="mixed")), "rope_type must be"),
    ],
)
def test_bad_arguments(arguments, field):
    with pytest.raises(ConfigError, match=field):
        ThinkingViT(**{**SMALL, **arguments})


SAME_NAMES = ("clip_base", "deit3_small", "dinov2_small", "dinov2_small_reg", "mae_base")


@pytest.mark.parametrize("arch", SAME_NAMES)
@torch.no_grad()
def test_from_weights_of_timm(tmp_path, arch):
    theirs = timm_model(arch)
    torch.save(theirs.state_dict(), path := tmp_path / "weights.pth")
    ours = ThinkingViT.from_weights(str(path), thinking_stages=(1, HEADS)).eval()
    assert ours.thinking_stages == (1, HEADS)
    images = torch.randn(2, 3, *theirs.patch_embed.img_size)
    close(ours.forward_stages(images)[1].tokens, theirs.forward_features(images))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_from_weights_of_ours(tmp_path, kind):
    model = randomize(build(kind))
    for layer in (block.attn.qkv for block in model.blocks):
        if isinstance(layer, KeyMaskedLinear):
            layer.bias.chunk(3)[1].zero_()  # they get no gradients, and show that keys have none
    torch.save(model.state_dict(), path := tmp_path / "weights.pth")
    read = ThinkingViT.from_weights(str(path), head_dim=16).eval()
    images = torch.randn(2, 3, 64, 64)
    for ours, wanted in zip(read.forward_stages(images), model.forward_stages(images), strict=True):
        close(ours.logits, wanted.logits)
