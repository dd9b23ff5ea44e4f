"""Reads weights of every code base into a thinking backbone and compares its features with theirs.

The sources are the packages' own classes, two blocks deep and with random parameters. A row of the
table says how far our features at full width are from theirs, relative to the largest, or why the
weights are refused. Every source that is read is then damaged and read into the same backbone: each
entry is left out, renamed, and joined by one that computes something. A damaged file that is read
without an error, without a line in the report, and with other features is a silent pass; there must
be none, nor a row above 1e-4.

    python tools/dev/check_sources.py [PART OF A NAME ...] [--write docs/weight-sources.md]

Needs transformers, open_clip_torch and mmpretrain for their rows; absent ones are named.
"""

import argparse
import contextlib
import importlib
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from tvit_seg import convert_state_dict
from tvit_seg.errors import CheckpointError
from tvit_seg.registry import MODELS
from tvit_seg.utils.text import printable
from tvit_seg.weights.architecture import read_architecture
from tvit_seg.weights.io import get_state_dict, read_checkpoint

SIZE, PATCH, WIDTH, HEADS = 64, 16, 64, 2
LIMIT = 1e-4
MARK = "<!-- made by tools/dev/check_sources.py: do not edit below -->\n"


@dataclass
class Source:
    """Weights of a code base.

    Attributes:
        checkpoint: As published: a file's content, or weights.
        features: Maps (B, D, h, w) of their network for images.
        size: Height and width of the images.
    """

    checkpoint: Mapping[str, Any]
    features: Callable[[Tensor], Tensor]
    size: tuple[int, int] = (SIZE, SIZE)


Build = Callable[[], Source]
SOURCES: dict[tuple[str, str], tuple[str, Build]] = {}
"""Releases of a package's kind of weights, and how to make such weights."""


def source(package: str, kind: str, releases: str) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        SOURCES[package, kind] = releases, build
        return build

    return add


@torch.no_grad()
def scramble(model: nn.Module) -> nn.Module:
    """Give all parameters values that matter."""
    generator = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.ndim < 2:
            near = 1.0 if name.endswith("weight") else 0.5 if "gamma" in name else 0.0
            p.copy_(near + 0.3 * noise)
        elif any(part in name for part in ("token", "pos", "embedding")) and "proj" not in name:
            p.copy_(0.5 * noise)
        else:
            p.copy_(noise * p[0].numel() ** -0.5)
    model.eval()  # of mmseg's returns nothing
    return model


def to_map(tokens: Tensor, grid: tuple[int, int] = (SIZE // PATCH, SIZE // PATCH)) -> Tensor:
    """Last tokens of (B, N, D) as a map (B, D, h, w)."""
    return tokens[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)


# --------------------------------------------------------------------- timm


def small_vit(name: str, **options: Any) -> nn.Module:
    small = dict(img_size=SIZE, depth=2, embed_dim=WIDTH, num_heads=HEADS, patch_size=PATCH)
    return scramble(timm.create_model(name, pretrained=False, **{**small, **options}))


def timm_vit(name: str, hub: bool = False, **options: Any) -> Build:
    """Weights as a file, or as the folder that timm publishes."""

    def build() -> Source:
        model = small_vit(name, **options)
        if hub:
            with tempfile.TemporaryDirectory() as folder:
                timm.models.save_for_hf(model, folder, safe_serialization=True)
                checkpoint = read_checkpoint(folder)
            return Source(checkpoint, lambda x: to_map(model.forward_features(x)))
        return Source(model.state_dict(), lambda x: to_map(model.forward_features(x)))

    return build


def timm_swin(name: str, **options: Any) -> Build:
    def build() -> Source:
        small = dict(img_size=112, depths=(2, 2), embed_dim=32, num_heads=(1, 2))
        model = scramble(timm.create_model(name, pretrained=False, **{**small, **options}))
        features = model.forward_features
        return Source(model.state_dict(), lambda x: features(x).permute(0, 3, 1, 2), (112, 112))

    return build


for _kind, _releases, _name, _options in [
    ("DeiT", "deit_*_patch16_224.fb_in1k", "deit_tiny_patch16_224", {}),
    ("DeiT, distilled", "deit_*_distilled_*", "deit_tiny_distilled_patch16_224", {}),
    ("DeiT III", "deit3_*.fb_in22k_ft_in1k", "deit3_small_patch16_224", {}),
    ("AugReg", "vit_*_patch16_224.augreg_in21k", "vit_small_patch16_224", {}),
    ("FlexiViT", "flexivit_*", "flexivit_small", {}),
    ("DINO", "vit_*.dino", "vit_small_patch16_224.dino", {}),
    ("DINOv2", "vit_*_patch14_dinov2", "vit_small_patch14_dinov2", {}),
    ("DINOv2 with registers", "vit_*_reg4_dinov2", "vit_small_patch14_reg4_dinov2", {}),
    ("DINOv2 giant", "vit_giant_*_dinov2", "vit_giant_patch14_dinov2",
     dict(embed_dim=96, num_heads=3)),
    ("DINOv3", "vit_*_dinov3", "vit_small_patch16_dinov3", {}),
    ("DINOv3 with qkv bias", "vit_*_dinov3_qkvb", "vit_small_patch16_dinov3_qkvb", {}),
    ("DINOv3 plus", "vit_*_plus_*_dinov3", "vit_small_plus_patch16_dinov3", {}),
    ("MAE", "vit_*.mae", "vit_base_patch16_224.mae", {}),
    ("MAE, fine-tuned", "vit_*_gap, mae_finetuned_*", "vit_base_patch16_224",
     dict(global_pool="avg", fc_norm=True)),
    ("CLIP", "vit_*_clip_224.*", "vit_base_patch16_clip_224", {}),
    ("SigLIP", "vit_*_siglip_*", "vit_base_patch16_siglip_224", {}),
    ("average pooling", "vit_*_gap_*", "vit_base_patch16_gap_224", {}),
    ("BEiT", "beit_*", "beit_base_patch16_224", {}),
    ("BEiT v2", "beitv2_*", "beitv2_base_patch16_224", {}),
    ("EVA", "eva_large_*", "eva_large_patch14_196", {}),
    ("EVA02 tiny", "eva02_tiny_*, eva02_small_*", "eva02_tiny_patch14_224", {}),
    ("EVA02 base", "eva02_base_*, eva02_large_*", "eva02_base_patch14_224", {}),
    ("Perception Encoder", "vit_pe_*", "vit_pe_core_tiny_patch16_384", {}),
    ("rotary ViT", "vit_*_rope_224", "vit_small_patch16_rope_224", {}),
    ("rotary ViT, absolute too", "vit_*_rope_ape_224", "vit_small_patch16_rope_ape_224",
     dict(hub=True)),
    ("rotary ViT, mixed", "vit_*_rope_mixed_224", "vit_small_patch16_rope_mixed_224", {}),
    ("relative positions", "vit_relpos_*", "vit_relpos_small_patch16_224", {}),
    ("shared relative positions", "vit_srelpos_*", "vit_srelpos_small_patch16_224", {}),
    ("SAM", "samvit_*", "samvit_base_patch16", {}),
    ("CaiT", "cait_*", "cait_xxs24_224", {}),
    ("XCiT", "xcit_*", "xcit_nano_12_p16_224", {}),
]:  # fmt: skip
    source("timm", _kind, _releases)(timm_vit(_name, **_options))
source("timm", "Swin", "swin_*_patch4_window7_224")(timm_swin("swin_tiny_patch4_window7_224"))
source("timm", "Swin V2", "swinv2_*")(timm_swin("swinv2_tiny_window8_256"))


# ------------------------------------------------------------- containers


def contained(prefix: str, others: str = "", key: str = "") -> Build:
    """A DeiT of timm under a prefix, beside another network, under a key of the checkpoint."""

    def build() -> Source:
        inner = SOURCES["timm", "DeiT"][1]()
        weights = {f"{prefix}{name}": value for name, value in inner.checkpoint.items()}
        if others:
            weights |= {f"{others}{k}": torch.ones_like(v) for k, v in inner.checkpoint.items()}
        return Source({key: weights, "epoch": 1} if key else weights, inner.features)

    return build


source("containers", "Lightning", "model.model.*")(contained("model.model.", key="state_dict"))
source("containers", "compiled", "_orig_mod.*")(contained("_orig_mod."))
source("containers", "I-JEPA, MSN", "target_encoder")(contained("module.", key="target_encoder"))
source("containers", "MoCo v3", "module.base_encoder.*")(
    contained("module.base_encoder.", "module.momentum_encoder.", "state_dict")
)


# ----------------------------------------------------------------- Google


@source("Google", "ViT, AugReg", "*.npz")
def google() -> Source:
    weights = small_vit("vit_small_patch16_224").state_dict()
    arrays = {
        "cls": weights["cls_token"],
        "embedding/kernel": weights["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": weights["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": weights["pos_embed"],
        "head/kernel": weights["head.weight"].T,
        "head/bias": weights["head.bias"],
    }

    def norm(theirs: str, ours: str) -> None:
        arrays[f"Transformer/{theirs}/scale"] = weights[f"{ours}.weight"]
        arrays[f"Transformer/{theirs}/bias"] = weights[f"{ours}.bias"]

    norm("encoder_norm", "norm")
    for i in range(2):
        block, theirs = f"blocks.{i}", f"encoderblock_{i}"
        norm(f"{theirs}/LayerNorm_0", f"{block}.norm1")
        norm(f"{theirs}/LayerNorm_2", f"{block}.norm2")
        attention = f"Transformer/{theirs}/MultiHeadDotProductAttention_1"
        for part, weight, bias in zip(
            ("query", "key", "value"),
            weights[f"{block}.attn.qkv.weight"].chunk(3),
            weights[f"{block}.attn.qkv.bias"].chunk(3),
            strict=True,
        ):
            arrays[f"{attention}/{part}/kernel"] = weight.T.unflatten(1, (HEADS, -1))
            arrays[f"{attention}/{part}/bias"] = bias.unflatten(0, (HEADS, -1))
        out = weights[f"{block}.attn.proj.weight"].T.unflatten(0, (HEADS, -1))
        arrays[f"{attention}/out/kernel"] = out
        arrays[f"{attention}/out/bias"] = weights[f"{block}.attn.proj.bias"]
        for j, layer in enumerate(("fc1", "fc2")):
            dense = f"Transformer/{theirs}/MlpBlock_3/Dense_{j}"
            arrays[f"{dense}/kernel"] = weights[f"{block}.mlp.{layer}.weight"].T
            arrays[f"{dense}/bias"] = weights[f"{block}.mlp.{layer}.bias"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "S_16.npz")
        np.savez(path, **{name: value.numpy() for name, value in arrays.items()})
        theirs = small_vit("vit_small_patch16_224")
        theirs.load_pretrained(str(path))  # timm's own reader is what we compare with
        checkpoint = read_checkpoint(path)
    return Source(checkpoint, lambda x: to_map(theirs.forward_features(x)))


# ----------------------------------------------------------- transformers


def transformers_vit(kind: str, model: str = "Model", **options: Any) -> Build:
    def build() -> Source:
        package = importlib.import_module("transformers")
        config = getattr(package, f"{kind}Config")(
            hidden_size=WIDTH,
            num_attention_heads=HEADS,
            num_hidden_layers=2,
            intermediate_size=4 * WIDTH,
            image_size=SIZE,
            patch_size=PATCH,
            **options,
        )
        theirs = scramble(getattr(package, f"{kind}{model}")(config))
        with tempfile.TemporaryDirectory() as folder:
            theirs.save_pretrained(folder)
            checkpoint = read_checkpoint(folder)
        inner = theirs if model == "Model" else theirs.base_model
        # without noise MAE shuffles the patches
        order = torch.arange((SIZE // PATCH) ** 2.0).expand(2, -1)
        extra = dict(noise=order) if "MAE" in kind else {}
        norm = inner.post_layernorm if "CLIP" in kind else nn.Identity()  # of the class token only
        return Source(checkpoint, lambda x: to_map(norm(inner(x, **extra).last_hidden_state)))

    return build


for _kind, _releases, _build in [
    ("ViT", "google/vit-*", transformers_vit("ViT")),
    ("ViT, classifier", "google/vit-*", transformers_vit("ViT", "ForImageClassification")),
    ("DeiT", "facebook/deit-*", transformers_vit("DeiT")),
    ("MAE, pre-training", "facebook/vit-mae-*", transformers_vit(
        "ViTMAE", "ForPreTraining", mask_ratio=0.0, decoder_hidden_size=32,
        decoder_num_hidden_layers=1, decoder_num_attention_heads=2)),
    ("DINOv2", "facebook/dinov2-*", transformers_vit("Dinov2")),
    ("DINOv2 with registers", "facebook/dinov2-with-registers-*",
     transformers_vit("Dinov2WithRegisters")),
    ("DINOv2 giant", "facebook/dinov2-giant", transformers_vit("Dinov2", use_swiglu_ffn=True)),
    ("DINOv3", "facebook/dinov3-vit*", transformers_vit("DINOv3ViT", num_register_tokens=4)),
    ("DINOv3 plus", "facebook/dinov3-vits16plus-*",
     transformers_vit("DINOv3ViT", num_register_tokens=4, use_gated_mlp=True, hidden_act="silu")),
    ("CLIP", "openai/clip-vit-*", transformers_vit("CLIPVision")),
    ("SigLIP", "google/siglip-*", transformers_vit("SiglipVision")),
    ("BEiT", "microsoft/beit-*", transformers_vit("Beit", use_relative_position_bias=True)),
]:  # fmt: skip
    source("transformers", _kind, _releases)(_build)


def transformers_swin(**options: Any) -> Build:
    def build() -> Source:
        package = importlib.import_module("transformers")
        config = package.SwinConfig(
            embed_dim=32, depths=[2, 2], num_heads=[1, 2], image_size=112, **options
        )
        theirs = scramble(package.SwinForImageClassification(config))
        with tempfile.TemporaryDirectory() as folder:
            theirs.save_pretrained(folder)
            checkpoint = read_checkpoint(folder)
        grid = (14, 14)
        features = theirs.base_model
        return Source(checkpoint, lambda x: to_map(features(x).last_hidden_state, grid), (112, 112))

    return build


source("transformers", "Swin", "microsoft/swin-*")(transformers_swin())
source("transformers", "Swin, absolute positions", "none known")(
    transformers_swin(use_absolute_embeddings=True)
)


# ------------------------------------------------------------- torchvision


@source("torchvision", "ViT", "vit_b_16, vit_b_32, vit_l_16")
def torchvision_vit() -> Source:
    package = importlib.import_module("torchvision.models")
    model = scramble(package.VisionTransformer(SIZE, PATCH, 2, HEADS, WIDTH, 4 * WIDTH))

    def features(x: Tensor) -> Tensor:
        tokens = model._process_input(x)
        tokens = torch.cat((model.class_token.expand(len(x), -1, -1), tokens), dim=1)
        return to_map(model.encoder(tokens))

    return Source(model.state_dict(), features)


@source("torchvision", "Swin", "swin_t, swin_s, swin_b")
def torchvision_swin() -> Source:
    package = importlib.import_module("torchvision.models")
    model = scramble(package.SwinTransformer([4, 4], 32, [2, 2], [1, 2], [7, 7]))

    def features(x: Tensor) -> Tensor:
        return model.norm(model.features(x)).permute(0, 3, 1, 2)

    return Source(model.state_dict(), features, (112, 112))


# --------------------------------------------------------------- open_clip


def open_clip(whole: bool, **options: Any) -> Build:
    def build() -> Source:
        package = importlib.import_module("open_clip.model")
        vision = dict(layers=2, width=WIDTH, head_width=WIDTH // HEADS, patch_size=PATCH)
        text = dict(layers=1, width=32, heads=1, vocab_size=10, context_length=4)
        vision |= dict(image_size=SIZE, output_tokens=True, **options)
        model = scramble(package.CLIP(32, vision, text, output_dict=False))
        weights = model.state_dict() if whole else model.visual.state_dict()
        visual = model.visual

        def features(x: Tensor) -> Tensor:
            tokens = visual.transformer(visual._embeds(x))
            return to_map(visual.ln_post(tokens))

        return Source(weights, features)

    return build


source("open_clip", "image encoder", "laion/CLIP-ViT-*")(open_clip(False))
source("open_clip", "both encoders", "ViT-B-16.pt, laion/CLIP-ViT-*")(open_clip(True))


# ------------------------------------------------------ mmpretrain, mmseg


def mmpretrain_vit(kind: str = "VisionTransformer", **options: Any) -> Build:
    def build() -> Source:
        package = importlib.import_module("mmpretrain.models.backbones")
        arch = dict(embed_dims=WIDTH, num_layers=2, num_heads=HEADS, feedforward_channels=4 * WIDTH)
        small = dict(arch=arch, img_size=SIZE, patch_size=PATCH, out_type="featmap")
        model = scramble(getattr(package, kind)(**{**small, **options}))
        return Source(model.state_dict(), lambda x: model(x)[-1])

    return build


for _kind, _releases, _build in [
    ("ViT", "vit-base-p16_*", mmpretrain_vit()),
    ("DINOv2", "vit-small-p14_dinov2-*", mmpretrain_vit(layer_scale_init_value=1e-5)),
    ("DINOv2 giant", "vit-giant-p14_dinov2-*",
     mmpretrain_vit(layer_scale_init_value=1e-5, layer_cfgs=dict(ffn_type="swiglu_fused"))),
    ("SwiGLU", "none known", mmpretrain_vit(layer_cfgs=dict(ffn_type="swiglu_fused"))),
    ("CLIP", "vit-base-p16_clip-*", mmpretrain_vit(pre_norm=True)),
    ("BEiT", "beit-*", mmpretrain_vit("BEiTViT")),
]:  # fmt: skip
    source("mmpretrain", _kind, _releases)(_build)


def mmseg_backbone(kind: str, size: tuple[int, int] = (SIZE, SIZE), **options: Any) -> Build:
    def build() -> Source:
        models = importlib.import_module("mmseg.registry").MODELS
        importlib.import_module("mmseg.models")
        model = models.build(dict(type=f"mmseg.{kind}", **options))
        scramble(model)
        return Source(model.state_dict(), lambda x: model(x)[-1], size)

    return build


_VIT = dict(patch_size=PATCH, embed_dims=WIDTH, num_layers=2, num_heads=HEADS, final_norm=True)
_SWIN = dict(embed_dims=32, depths=(2, 2), num_heads=(1, 2), strides=(4, 2), out_indices=(0, 1))
for _kind, _name, _options in [
    ("ViT", "VisionTransformer", dict(img_size=(SIZE, SIZE), **_VIT)),
    ("ViT, no final norm", "VisionTransformer",
     dict(img_size=SIZE, **{**_VIT, "final_norm": False})),
    ("ViT, patch bias", "VisionTransformer", dict(img_size=SIZE, patch_bias=True, **_VIT)),
    ("ViT, 64 x 96", "VisionTransformer", dict(img_size=(SIZE, 96), **_VIT)),
    ("ViT, no qkv bias", "VisionTransformer", dict(img_size=SIZE, qkv_bias=False, **_VIT)),
    ("ViT, pre_norm", "VisionTransformer", dict(img_size=SIZE, pre_norm=True, **_VIT)),
    ("ViT, patch_norm", "VisionTransformer", dict(img_size=SIZE, patch_norm=True, **_VIT)),
    ("MAE", "MAE", dict(img_size=(SIZE, SIZE), **_VIT)),
    ("BEiT", "BEiT", dict(img_size=(SIZE, SIZE), **_VIT)),
    ("Swin", "SwinTransformer", _SWIN),
    ("Swin, absolute positions", "SwinTransformer",
     dict(use_abs_pos_embed=True, pretrain_img_size=112, **_SWIN)),
    ("Swin, no patch norm", "SwinTransformer", dict(patch_norm=False, **_SWIN)),
]:  # fmt: skip
    _size = (112, 112) if "Swin" in _name else (SIZE, 96) if "96" in _kind else (SIZE, SIZE)
    source("mmsegmentation", _kind, _name)(mmseg_backbone(_name, _size, **_options))


# ----------------------------------------------------------------- checks


BUILT: dict[str, nn.Module] = {}
"""Models by their config, since damaged files mostly differ in nothing else."""


def read(
    checkpoint: Mapping[str, Any], size: tuple[int, int], config: dict | None = None
) -> tuple[nn.Module, Any, dict]:
    """A thinking backbone of one stage with the weights, a report, and the backbone's config.

    The config is read from the weights if None. Heads are named where the checkpoint does not
    record them, and the size of images other than squares.
    """
    weights = convert_state_dict(checkpoint)
    recorded = weights.report.recorded
    recorded.setdefault("img_size", size)
    config = config or read_architecture(
        weights, None if "num_heads" in recorded else WIDTH // HEADS
    )
    model = BUILT.get(repr(config)) or MODELS.build(config)
    BUILT[repr(config)] = model
    converted = convert_state_dict(weights, model)
    for parameter in model.parameters():  # whatever the weights lack must show
        nn.init.normal_(parameter)
    model.load_state_dict(converted, strict=False)
    return model.eval(), converted.report, config


def difference(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().max() / theirs.abs().max())


def damaged(checkpoint: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The checkpoint without one entry, with one renamed, with one more, each in turn."""
    weights = get_state_dict(checkpoint)
    rest = {"meta": checkpoint["meta"]} if "meta" in checkpoint else {}

    def wrap(changed: dict[str, Tensor]) -> dict[str, Any]:
        return {**rest, "state_dict": changed}

    for name in weights:
        yield f"without {name}", wrap({k: v for k, v in weights.items() if k != name})
        renamed = f"{name}_other" if name.count(".") == 0 else name.replace(".", ".other_", 1)
        yield (
            f"{name} renamed",
            wrap({(renamed if k == name else k): v for k, v in weights.items()}),
        )
    parents = {name.rpartition(".")[0] for name in weights}
    for parent in sorted(parents):
        for extra in ("norm_pre.weight", "attn.q_norm.weight", "extra"):
            name = f"{parent}.{extra}".lstrip(".")
            if name not in weights:
                yield f"with {name}", wrap({**weights, name: torch.full((WIDTH,), 2.0)})


@torch.no_grad()
def check(build: Build, mutate: bool) -> tuple[str, str, list[str]]:
    """Count of tensors, result, and silent passes of a source."""
    theirs = build()
    images = torch.randn(2, 3, *theirs.size, generator=torch.Generator().manual_seed(1))
    expected = theirs.features(images)
    count = str(len(get_state_dict(theirs.checkpoint)))
    try:
        model, _, config = read(theirs.checkpoint, theirs.size)
    except CheckpointError as error:
        return count, f"refused: {printable(str(error))}", []
    distance = difference(model(images)[-1], expected)
    silent = ["itself"] if distance > LIMIT else []
    for change, checkpoint in damaged(theirs.checkpoint) if mutate and not silent else ():
        try:
            model, report, _ = read(checkpoint, theirs.size, config)
        except CheckpointError:
            continue
        if not report.absent and difference(model(images)[-1], expected) > LIMIT:
            silent.append(change)
    return count, f"{distance:.1e}", silent


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="parts of labels; default: all")
    parser.add_argument("--no-damage", action="store_true", help="skips the damaged files")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    args = parser.parse_args()
    rows, silent = [], []
    for (package, kind), (releases, build) in SOURCES.items():
        if args.names and not any(name in f"{package} {kind}" for name in args.names):
            continue
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                count, result, passed = check(build, not args.no_damage)
        except ImportError as error:
            print(f"skipped: {package}, {kind}: {error}", file=sys.stderr)
            continue
        silent += [f"{package}, {kind}: {what}" for what in passed]
        rows.append(f"| {package} | {kind} | {releases} | {count} | {result} |")
        print(rows[-1], flush=True)
    print(f"{len(rows)} sources, {len(silent)} silent passes")
    for passed in silent:
        print(f"  {passed}")
    if args.write:
        head = args.write.read_text().partition(MARK)[0]
        table = ["| code base | kind | releases | tensors | largest difference, or refusal |"]
        table += ["|---|---|---|---|---|", *(row.replace("*", "\\*") for row in rows)]
        args.write.write_text(f"{head}{MARK}\n" + "\n".join(table) + "\n")
    return bool(silent)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    sys.exit(main())
