"""From our weights to the authors' layout, and to plain models of a single thinking stage."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from ..errors import CheckpointError
from ..models.backbones import ThinkingViT
from .architecture import backbone_weights, read_architecture
from .convert import BLOCK_NAMES, convert_state_dict
from .export_swin import extract_swin_stage, swin_timm_to_mmseg, swin_to_authors
from .names_swin import is_swin

_MMSEG_BLOCK = [(re.escape(mmseg), timm) for timm, mmseg in BLOCK_NAMES.items()]
_AUTHORS_DECODER = {
    "dec_proj.": "proj_dec.",
    "patch_proj.weight": "proj_patch",
    "classes_proj.weight": "proj_classes",
    "conv_seg.": "head.",
    "layers.": "blocks.",
    "cls_emb": "cls_emb",
    "decoder_norm.": "decoder_norm.",
    "mask_norm.": "mask_norm.",
}


def to_authors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of the authors' code, the reverse of ``convert_state_dict``.

    Args:
        weights: Ours, of a backbone or classifier (gives their ThinkingViT or ThinkingSwin layout)
            or of a ViT segmentor with a Segmenter head (gives ``encoder.*`` and ``decoder.*``).

    Returns:
        Weights under the authors' names. Their classification model projects recycled tokens to the
        full width: rows that it never uses are 0. Their Swin has no norms for the maps of lower
        levels: those are left out.

    Raises:
        CheckpointError: If their code has no place for a weight.
    """
    weights = convert_state_dict(weights)
    if is_swin(weights):
        return swin_to_authors(weights)
    if any(name.startswith("decode_head.") for name in weights):
        return dict(map(_authors_segmentor_entry, weights.items()))
    weights = backbone_weights(weights)
    width = weights["norm.weight"].shape[0]
    return dict(_authors_classifier_entry(name, value, width) for name, value in weights.items())


def _authors_classifier_entry(name: str, value: Tensor, width: int) -> tuple[str, Tensor]:
    if match := re.fullmatch(r"recycle\.(\d+)\.scale", name):
        return f"alpha.{match[1]}", value
    if match := re.fullmatch(r"recycle\.(\d+)\.proj\.(weight|bias)", name):
        index = int(match[1])
        padded = value.new_zeros(width, *value.shape[1:])
        padded[: len(value)] = value
        return f"proj_layer{index + 1 if index else ''}.{match[2]}", padded
    return re.sub(r"^pruning\.predictors\.", "score_predictor.", name), value


def _authors_segmentor_entry(entry: tuple[str, Tensor]) -> tuple[str, Tensor]:
    name, value = entry
    part, _, rest = name.partition(".")
    if part == "backbone":
        rest = re.sub(r"^recycle\.(\d+)\.scale$", r"_thinking_alphas.\1", rest)
        rest = re.sub(r"^recycle\.(\d+)\.proj\.", r"_thinking_proj_layers.\1.", rest)
        rest = re.sub(r"^pruning\.predictors\.", "score_predictor.", rest)
        return f"encoder.{rest}", value
    theirs = next((key for key in _AUTHORS_DECODER if rest.startswith(key)), None)
    if part != "decode_head" or theirs is None:
        raise CheckpointError(
            f"the authors' code has no place for {name}: it knows Segmenter's linear and mask heads"
        )
    for mmseg, timm in _MMSEG_BLOCK:
        rest = re.sub(rf"^(layers\.\d+\.){mmseg}", rf"\1{timm}", rest)
    rest = _AUTHORS_DECODER[theirs] + rest.removeprefix(theirs)
    if theirs in ("patch_proj.weight", "classes_proj.weight"):  # used as x @ W
        value = value.T.contiguous()
    elif rest == "head.weight":  # a linear layer, for mmseg a 1 x 1 convolution
        value = value.flatten(1)
    return f"decoder.{rest}", value


def extract_stage(
    weights: Mapping[str, Tensor],
    stage: int,
    head_dim: int = 64,
    thinking_stages: Sequence[int] | Sequence[Sequence[int]] | None = None,
    slicing: str | None = None,
    maps: bool = False,
) -> tuple[dict[str, Tensor], dict]:
    """The weights of one thinking stage, for a plain ViT or Swin of its width.

    The first stage is such a network. Later ones also add recycled tokens of the stage before to
    their embedding; a plain network does without, and predicts something else.

    Args:
        weights: Ours, of a backbone, classifier or segmentor.
        stage: Index of the stage, from 0.
        head_dim: Channels of an attention head of a ViT.
        thinking_stages: Heads of each stage, see :func:`~tvit_seg.weights.read_architecture`;
            a Swin of several stages needs them.
        slicing: How narrow stages of a Swin read its weights.
        maps: Whether to keep the norms of a Swin's lower maps: mmseg's has them, timm's not.

    Returns:
        Weights under timm's names, and the arguments of timm's ``VisionTransformer`` or
        ``SwinTransformer`` for them.

    Raises:
        CheckpointError: If these are no ViT or Swin weights, or the stages do not go together with
            them, or a stage of a Swin does not double its width from level to level.
        ValueError: If there is no such stage.
    """
    weights = convert_state_dict(weights)
    kind = weights.report.source
    weights = backbone_weights(weights)
    if is_swin(weights):
        return extract_swin_stage(weights, stage, thinking_stages, slicing, kind, maps)
    options = read_architecture(weights, head_dim, thinking_stages)
    stages = options["thinking_stages"]
    if not 0 <= stage < len(stages):
        raise ValueError(f"stage={stage} must lie in [0, {len(stages) - 1}]")
    heads = stages[stage]
    options.update(thinking_stages=(heads,), num_heads=heads, embed_dims=heads * head_dim)
    narrow = ThinkingViT(**options)
    plain = dict(
        img_size=options["img_size"],
        patch_size=options["patch_size"],
        in_chans=options["in_channels"],
        embed_dim=options["embed_dims"],
        depth=options["num_layers"],
        num_heads=heads,
        mlp_ratio=options["mlp_ratio"],
        qkv_bias=options["qkv_bias"],
        num_classes=options["num_classes"],
    )
    return dict(convert_state_dict(weights, narrow)), plain


def timm_to_mmseg(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A plain ViT's or Swin's weights under the names of mmseg's model.

    Args:
        weights: Under timm's names. The classification head is left out: mmseg's has none.
    """
    if is_swin(weights):
        return swin_timm_to_mmseg(weights)
    renamed = {}
    for name, value in weights.items():
        if name.startswith("head."):
            continue
        name = re.sub(r"^patch_embed\.proj\.", "patch_embed.projection.", name)
        name = re.sub(r"^norm\.", "ln1.", name)
        name = re.sub(r"^blocks\.", "layers.", name)
        for timm, mmseg in BLOCK_NAMES.items():
            name = re.sub(rf"^(layers\.\d+\.){re.escape(timm)}", rf"\1{mmseg}", name)
        renamed[name] = value
    return renamed
