"""One thinking stage as a plain network."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from ..registry import MODELS
from ..utils.checks import check
from .architecture import Stages, doubles, read_architecture
from .convert import backbone_weights, convert_state_dict

_TIMM_PARTS = {
    "init_values", "no_embed_class", "pre_norm", "qk_norm", "reg_tokens", "scale_attn_norm",
    "scale_mlp_norm",
}  # fmt: skip
"""Arguments of ThinkingViT that are those of timm's ``VisionTransformer``."""


def extract_stage(
    weights: Mapping[str, Tensor],
    stage: int,
    head_dim: int | None = None,
    thinking_stages: Stages | None = None,
    slicing: str | None = None,
    maps: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Extract the weights of one thinking stage, for a plain ViT or Swin of its width.

    Stage 0 is exactly such a network. Later stages also add recycled tokens of the stage before to
    their embedding; a plain network does not, and its predictions differ.

    Args:
        weights: Ours, of a backbone, classifier or segmentor.
        stage: Index of the stage, from 0.
        head_dim: For :func:`~tvit_seg.weights.architecture.read_architecture`, like the next two.
        thinking_stages: Heads of each stage.
        slicing: Slicing of a Swin's narrow stages.
        maps: Keep the norms of a Swin's lower maps: mmseg's has them, timm's not.

    Returns:
        Weights under timm's names, and the arguments of timm's ``VisionTransformer`` or
        ``SwinTransformer`` for them; at a Swin's ``img_size`` the last level is a single window.

    Raises:
        CheckpointError: The architecture cannot be read, or the stage of a Swin does not double its
            width from level to level.
        ConfigError: There is no such stage.
    """
    config = read_architecture(weights, head_dim, thinking_stages, slicing)
    stages, width = config["thinking_stages"], config["embed_dims"]
    check(stage in range(len(stages)), "stage", stage, f"in [0, {len(stages) - 1}]")
    heads = stages[stage]
    if config["type"] == "ThinkingViT":
        width = heads * width // config["num_heads"]
        if unknown := {"rope", "mlp_layer"} & config.keys():
            raise CheckpointError(
                f"timm's VisionTransformer has no {' and '.join(sorted(unknown))}"
            )
        img_size, own = config["img_size"], dict(depth=config["num_layers"], num_heads=heads)
        own |= {key: config[key] for key in _TIMM_PARTS & config.keys()}
    else:
        window, last = config["window_size"], len(heads) - 1
        img_size = config["patch_size"] * 2**last * window
        own = dict(depths=config["depths"], num_heads=heads, window_size=window)
        full = enumerate(zip(config["num_heads"], heads, strict=True))
        dims = [width * 2**level // most * count for level, (most, count) in full]
        if not doubles(dims):
            raise CheckpointError(
                f"stage {stage} has levels of {dims} channels: no plain Swin, which doubles its "
                "width from level to level"
            )
        if config["slicing"] == "leading" and dims[0] < width:
            raise CheckpointError(
                f"stage {stage} reads {dims[0]} channels of patches normalised over {width}: no "
                "plain Swin does so"
            )
        width = dims[0]
        if not maps:
            config.update(out_indices=-1)
    config.update(thinking_stages=(heads,), num_heads=heads, embed_dims=width)
    narrow = convert_state_dict(backbone_weights(weights), MODELS.build(config))
    if config["type"] == "ThinkingSwin":
        narrow = {
            (f"head.fc.{k[5:]}" if k.startswith("head.") else k): v for k, v in narrow.items()
        }
    return dict(narrow), dict(
        img_size=img_size,
        patch_size=config["patch_size"],
        in_chans=config["in_channels"],
        embed_dim=width,
        **own,
        mlp_ratio=config["mlp_ratio"],
        qkv_bias=config["qkv_bias"],
        num_classes=config["num_classes"],
    )
