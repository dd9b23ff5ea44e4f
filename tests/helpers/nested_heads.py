"""Small decode heads and necks at full and at half width."""

import torch
from mmseg.registry import MODELS

from tvit_seg.thinking import StagedFeatures

BN = dict(norm_cfg=dict(type="BN"))
LOSS = dict(num_classes=7, dropout_ratio=0, loss_decode=dict(type="CrossEntropyLoss"))
ONE = ((24,), (48,))
FOUR = ((16, 16, 32, 64), (16, 32, 64, 128))  # the first level has its full width always
HALVED = ("channels", "embed_dims", "num_heads", "out_channels", "c1_channels")

PLAIN = dict(in_channels=48, channels=32, **BN, **LOSS)
PYRAMID = dict(in_channels=[16, 32, 64, 128], in_index=[0, 1, 2, 3], channels=32, **BN, **LOSS)
HEADS = dict(
    mask=dict(
        type="SegmenterMaskTransformerHead",
        in_channels=48,
        channels=48,
        embed_dims=48,
        num_layers=2,
        num_heads=4,
        **LOSS,
    ),
    linear=dict(
        type="FCNHead", num_convs=0, concat_input=False, in_channels=48, channels=48, **LOSS
    ),
    fcn=dict(type="FCNHead", num_convs=2, **PLAIN),
    psp=dict(type="PSPHead", **PLAIN),
    aspp=dict(type="ASPPHead", dilations=(1, 2), **PLAIN),
    separable=dict(
        type="DepthwiseSeparableASPPHead",
        c1_in_channels=16,
        c1_channels=8,
        dilations=(1, 2),
        **{**PLAIN, "in_channels": 128, "in_index": 3},
    ),
    uper=dict(type="UPerHead", **PYRAMID),
    groups=dict(type="UPerHead", **{**PYRAMID, "norm_cfg": dict(type="GN", num_groups=8)}),
    segformer=dict(type="SegformerHead", **PYRAMID),
    auxiliary=dict(
        type="FCNHead", num_convs=1, **{**PLAIN, "in_channels": 64, "in_index": 2, "channels": 20}
    ),
    resized=dict(type="FCNHead", num_convs=1, input_transform="resize_concat", **PYRAMID),
    fpn=dict(type="FPN", in_channels=[16, 32, 64, 128], out_channels=32, num_outs=5, **BN),
    levels=dict(type="MultiLevelNeck", in_channels=[16, 32, 64, 128], out_channels=32, **BN),
)
NECKS = ("fpn", "levels")
WITH_STATISTICS = tuple(name for name in HEADS if name not in ("mask", "linear", "groups"))

PYRAMID_PARTS = [16, 32, 64, 128]
PARTS = dict(
    fcn={"conv_cat": [48, 32]},
    psp={"bottleneck": [48, 32, 32, 32, 32]},
    aspp={"bottleneck": [32] * 3},
    separable={"bottleneck": [32] * 3, "sep_bottleneck.0": [32, 8]},
    uper={"bottleneck": [128, 32, 32, 32, 32], "fpn_bottleneck": [32] * 4},
    groups={"bottleneck": [128, 32, 32, 32, 32], "fpn_bottleneck": [32] * 4},
    segformer={"fusion_conv": [32] * 4},
    auxiliary={"conv_cat": [64, 20]},
    resized={"convs.0": PYRAMID_PARTS, "conv_cat": [*PYRAMID_PARTS, 32]},
)
"""Full widths of what is concatenated before a layer."""


def widths(name):
    """(narrow, full) channels of the maps that a head gets."""
    return ONE if HEADS[name]["in_channels"] == 48 else FOUR


def build(config):
    """A plain head whose norms are not the identity, the same weights each time."""
    torch.manual_seed(0)
    head = MODELS.build(config).eval()
    with torch.no_grad():
        for norm in head.modules():
            if getattr(norm, "weight", None) is not None and "Norm" in type(norm).__name__:
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_()
            if getattr(norm, "running_mean", None) is not None:
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 1.5)
    return head


def narrow_config(name):
    """The config of the plain head of half the width."""
    config = dict(HEADS[name])
    half = {key: config[key] // 2 for key in HALVED if key in config}
    if config.get("norm_cfg", {}).get("type") == "GN":
        half["norm_cfg"] = dict(type="GN", num_groups=4)
    narrow, full = widths(name)
    own = config["in_channels"]
    if isinstance(own, list):
        return {**config, **half, "in_channels": list(narrow)}
    return {**config, **half, "in_channels": narrow[full.index(own)]}


def halves(name, weight, x, shape):
    """Cuts a tensor by hand to the shape it has at half width, ends of both dimensions included."""
    parts = next((p for layer, p in PARTS.get(name, {}).items() if weight.startswith(layer)), None)
    for dim, length in enumerate(shape):
        if length == x.shape[dim]:
            continue
        # a depthwise convolution, and the norm behind it, keep the parts of what they get
        depthwise = name == "separable" and weight.startswith("sep_bottleneck.0.depthwise_conv")
        joined = dim == 1 or depthwise
        if weight.endswith(("in_proj_weight", "in_proj_bias")) and dim == 0:
            pieces = [q[: length // 3] for q in x.chunk(3)]
        elif parts and joined and sum(parts) == x.shape[dim]:
            pieces = [
                p.narrow(dim, 0, half(part))
                for p, part in zip(x.split(parts, dim), parts, strict=True)
            ]
        else:
            pieces = [x.narrow(dim, 0, length)]
        x = torch.cat(pieces, dim)
    return x


def half(width):
    """What is left of a map or an inner layer; the first level of the pyramid is not cut."""
    return 16 if width == 16 else width // 2


def maps(name, narrow=False, count=3):
    """Random maps (n, C, h, w), zero-padded if narrow."""
    generator = torch.Generator().manual_seed(1)
    small, full = widths(name)
    found = []
    for level, (width, channels) in enumerate(zip(small, full, strict=True)):
        size = 16 >> level
        x = torch.randn(count, channels, size, size, generator=generator)
        if narrow:
            x[:, width:] = 0
        found.append(x)
    return found


def staged(name, stage, count=3):
    """The same as features of one stage of two."""
    return StagedFeatures(maps(name, stage == 0, count), stage)


def outputs(found):
    """A list of tensors, of a head as of a neck."""
    return [found] if isinstance(found, torch.Tensor) else list(found)
