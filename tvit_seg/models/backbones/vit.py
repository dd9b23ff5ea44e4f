"""ThinkingViT (https://arxiv.org/abs/2507.10800): vision transformer of nested stages."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from mmcv.cnn import build_activation_layer
from timm.layers import (
    calculate_drop_path_rates,
    resample_abs_pos_embed,
    to_2tuple,
    trunc_normal_,
)
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ExportError
from ...registry import register
from ...thinking import StageOutput
from ...utils.checks import check, check_choice, check_integer
from ..gates import Gate
from ..layers import (
    NestedBlock,
    NestedLinear,
    NestedMlp,
    NestedPatchEmbed,
    NestedSwiGLU,
    NestedSwiGLUPacked,
    Recycle,
    build_rope,
    rotary_table,
)
from ..pruning import AllTokens, build_pruning
from .arch import with_arch
from .arguments import (
    check_fixed,
    check_integers,
    check_out_indices,
    check_patch_size,
    check_rates,
    norm_layer,
    pretrained_init_cfg,
)
from .base import ThinkingBackbone

# options of mmseg's VisionTransformer; nested stages, recycling and gates need these values
_FIXED = dict(
    patch_pad="corner",
    with_cls_token=True,
    patch_norm=False,
    num_fcs=2,
    norm_eval=False,
)

# the perceptrons of timm that are nested here
_MLPS = dict(Mlp=NestedMlp, SwiGLU=NestedSwiGLU, SwiGLUPacked=NestedSwiGLUPacked)


@register("MODELS")
class ThinkingViT(ThinkingBackbone):
    """Vision transformer that runs its first attention heads first, and all only if needed.

    Stage i runs the first ``thinking_stages[i]`` heads and the channels that belong to them, in
    every layer, on the leading channels of the embedding plus the recycled tokens of stage i - 1.
    The arguments are those of mmseg's ``VisionTransformer``, which it can replace.

    Args:
        img_size: Image size in pixels of the position embedding, one or (H, W). Other sizes work:
            the image is padded on the right and bottom to a multiple of the patch size, and the
            position embedding resized.
        patch_size: Side of the square patches in pixels, also as (side, side).
        in_channels: Channels of the image.
        embed_dims: Width D of the widest possible stage; None for 64 x ``num_heads``.
        num_layers: Number of blocks.
        num_heads: Attention heads at width D; None for the heads of the last thinking stage.
        mlp_ratio: Hidden width of the perceptrons over their width, > 0. Narrow stages have the
            same share of the full hidden width, rounded down.
        out_origin: Returns the stage's input as a map before all others.
        out_indices: Blocks whose output is returned as a map; -1 is the last.
        qkv_bias: Adds a bias to query, key and value.
        drop_rate: Dropout rate after embedding and projections.
        attn_drop_rate: Dropout rate of attention weights.
        drop_path_rate: Stochastic depth rate of the last block, rising linearly from 0.
        norm_cfg: Normalisation, ``type='LN'`` with its ``eps``, and ``requires_grad``.
        act_cfg: Activation of the perceptrons.
        patch_bias: Adds a bias to the patch embedding (mmseg's default is False, but DeiT's, timm's
            and the authors' weights have one).
        output_cls_token: Pairs each map with the class token, as DPT's head expects.
        final_norm: Applies the final norm to the last map. The output tokens always have it.
        interpolate_mode: ``'bicubic'`` or ``'bilinear'`` resizing of the position embedding.
        with_cp: Recomputes activations in the backward pass to save memory.
        frozen_exclude: Parameters with one of these in their name are trained, all others
            frozen; ``['all']`` trains everything.
        pre_norm: Normalises the embedding before the first block, in each stage over the
            channels of the stage (CLIP). Recycled tokens, which passed the final norm, are added
            afterwards.
        pretrained: Deprecated spelling of ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        thinking_stages: Attention heads of each thinking stage, increasing.
        gate: Gate or its config; None always thinks to the end.
        num_classes: Classes of the image-level head on the class token, which gates read; 0: none.
        loss_weights: Weight of each stage in the joint loss; None for equal weights.
        pruning: Config of the token pruning, ``type='DynamicPruning'`` or, in a full segmentor,
            ``'UncertaintyPruning'``; None: none.
        arch: Name of a published network in :data:`.arch.ARCHS`, such as ``'dinov3_small'``, for
            the defaults of all arguments.
        reg_tokens: Register tokens, after the class token; part of no map.
        no_embed_class: Leaves the class token and registers without position embedding.
        use_abs_pos_emb: Adds a learned position embedding to the tokens.
        rope: Rotary position embedding of the patches in every block: arguments of timm's
            ``create_rope_embed``, ``rope_type='cat'`` (EVA) or ``'dinov3'``; None for none.
        init_values: Initial factor of a learned scale of each channel after attention and
            perceptron; None for none.
        k_bias: False leaves keys without the bias of ``qkv_bias`` (BEiT, EVA, DINOv3).
        qk_norm: Normalises queries and keys of each head.
        mlp_layer: Perceptron, ``'Mlp'``, ``'SwiGLU'`` or, with gate and values in one layer,
            ``'SwiGLUPacked'``. The last two have no ``act_cfg``.
        scale_attn_norm: Normalises the heads' output before its projection.
        scale_mlp_norm: Normalises the hidden channels of the perceptron.
        init_cfg: See :class:`ThinkingBackbone`.
        **fixed: Further arguments of mmseg's ``VisionTransformer``, accepted with the only value
            that nested stages allow: ``patch_pad='corner'``, ``with_cls_token=True``,
            ``patch_norm=False``, ``num_fcs=2``, ``norm_eval=False``.
    """

    @with_arch
    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 16,
        in_channels: int = 3,
        embed_dims: int | None = None,
        num_layers: int = 12,
        num_heads: int | None = None,
        mlp_ratio: float = 4,
        out_origin: bool = False,
        out_indices: int | Sequence[int] = -1,
        output_cls_token: bool = False,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_cfg: dict = dict(type="LN", eps=1e-6),
        act_cfg: dict = dict(type="GELU"),
        patch_bias: bool = True,
        pre_norm: bool = False,
        final_norm: bool = True,
        interpolate_mode: str = "bicubic",
        with_cp: bool = False,
        frozen_exclude: Sequence[str] = ("all",),
        pretrained: str | None = None,
        thinking_stages: Sequence[int] = (3, 6),
        gate: Gate | dict | None = None,
        num_classes: int = 0,
        loss_weights: Sequence[float] | None = None,
        pruning: dict | None = None,
        arch: str | None = None,
        reg_tokens: int = 0,
        no_embed_class: bool = False,
        use_abs_pos_emb: bool = True,
        rope: dict | None = None,
        init_values: float | None = None,
        k_bias: bool = True,
        qk_norm: bool = False,
        mlp_layer: str = "Mlp",
        scale_attn_norm: bool = False,
        scale_mlp_norm: bool = False,
        init_cfg: dict | list | None = None,
        **fixed,
    ):
        check_fixed("ThinkingViT", fixed, _FIXED)
        check_choice("interpolate_mode", interpolate_mode, ("bicubic", "bilinear"))
        check_choice("mlp_layer", mlp_layer, _MLPS)
        check_integer("reg_tokens", reg_tokens, minimum=0)
        patch_size = check_patch_size(patch_size)
        check_rates(mlp_ratio, drop_path_rate)
        heads = check_integers("thinking_stages", thinking_stages)
        increasing = heads == tuple(sorted({*heads}))
        check(increasing, "thinking_stages", thinking_stages, "increasing")
        num_heads = num_heads or heads[-1]
        fits = heads[-1] <= num_heads
        check(fits, "thinking_stages", thinking_stages, f"at most num_heads={num_heads}")
        embed_dims = embed_dims or 64 * num_heads
        divisible = f"divisible by num_heads={num_heads}"
        check(embed_dims % num_heads == 0, "embed_dims", embed_dims, divisible)
        img_size = to_2tuple(img_size)
        fits = len(img_size) == 2 and min(img_size) >= patch_size
        check(fits, "img_size", img_size, f"two lengths of at least a patch, {patch_size} pixels")
        init_cfg = pretrained_init_cfg(pretrained, init_cfg)
        super().__init__(len(heads), num_classes, gate, loss_weights, init_cfg)

        self.thinking_stages = heads
        self.embed_dims = embed_dims
        self.stage_dims = tuple(embed_dims // num_heads * h for h in heads)
        self.patch_size = patch_size
        self.out_origin = out_origin
        self.out_indices = check_out_indices(out_indices, num_layers)
        self.output_cls_token = output_cls_token
        self.final_norm = final_norm
        self.interpolate_mode = interpolate_mode
        self.with_cp = with_cp
        self.num_prefix_tokens = 1 + reg_tokens
        self.no_embed_class = no_embed_class
        norm = norm_layer(norm_cfg)

        self.patch_embed = NestedPatchEmbed(
            img_size, patch_size, in_channels, embed_dims, bias=patch_bias
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.reg_token = self.pos_embed = None
        if reg_tokens:
            self.reg_token = nn.Parameter(torch.zeros(1, reg_tokens, embed_dims))
        if use_abs_pos_emb:
            length = self.patch_embed.num_patches
            length += 0 if no_embed_class else self.num_prefix_tokens
            self.pos_embed = nn.Parameter(torch.zeros(1, length, embed_dims))
        self.pos_drop = nn.Dropout(drop_rate)
        self.norm_pre = norm(embed_dims) if pre_norm else nn.Identity()
        self.rope = build_rope(dim=embed_dims, num_heads=num_heads, **rope) if rope else None
        activation = partial(build_activation_layer, act_cfg) if mlp_layer == "Mlp" else nn.SiLU
        self.blocks = nn.ModuleList(
            NestedBlock(
                embed_dims,
                num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                k_bias=k_bias,
                rope_rotate_half=getattr(self.rope, "rotate_half", False),
                qk_norm=qk_norm,
                scale_attn_norm=scale_attn_norm,
                scale_mlp_norm=scale_mlp_norm,
                proj_drop=drop_rate,
                attn_drop=attn_drop_rate,
                init_values=init_values,
                drop_path=rate,
                act_layer=activation,
                norm_layer=norm,
                mlp_layer=_MLPS[mlp_layer],
            )
            for rate in calculate_drop_path_rates(drop_path_rate, num_layers)
        )
        self.norm = norm(embed_dims)
        self.head = NestedLinear(embed_dims, num_classes) if num_classes else None
        self.recycle = nn.ModuleList(
            Recycle(narrow, wide) for narrow, wide in pairwise(self.stage_dims)
        )
        self._reset_parameters()
        self.frozen_exclude = tuple(frozen_exclude)
        self.set_pruning(pruning)

    def set_pruning(self, pruning: Mapping | None, has_decode_head: bool = False) -> None:
        """Replace the token pruning; see :meth:`ThinkingBackbone.set_pruning`."""
        layers = len(self.blocks)
        self.pruning = build_pruning(pruning, self.stage_dims, layers, has_decode_head)
        if self.pruning is not None:
            self.pruning.train(self.training)  # it chooses tokens in another way in training
        self._freeze(self.frozen_exclude)

    def embed(self, images: Tensor, stage: int, embedding: Tensor | None = None) -> Tensor:
        """Class token, registers, patches with positions; see :meth:`ThinkingBackbone.embed`.

        Returns:
            (n, P + h w, d_i), (h, w) the grid of the padded image.
        """
        start = 0 if embedding is None else embedding.shape[-1]
        new = slice(start, self.stage_dims[stage])
        tokens = self.patch_embed(images, new)  # (n, h w, d_i - d_{i-1})
        if self.no_embed_class:
            tokens = self._add_positions(tokens, new, images.shape[-2:], 0)
        prefix = [token for token in (self.cls_token, self.reg_token) if token is not None]
        prefix = [token[..., new].expand(tokens.shape[0], -1, -1) for token in prefix]
        tokens = torch.cat((*prefix, tokens), dim=1)
        if not self.no_embed_class:
            tokens = self._add_positions(tokens, new, images.shape[-2:], self.num_prefix_tokens)
        tokens = self.pos_drop(tokens)
        return tokens if embedding is None else torch.cat((embedding, tokens), dim=-1)

    def grid(self, size: Sequence[int]) -> list[int]:
        """Rows and columns of patches for an image of (H, W) pixels, padding included."""
        return [-(-length // self.patch_size) for length in size]

    def padded_size(self, size: Sequence[int]) -> list[int]:
        return [length * self.patch_size for length in self.grid(size)]

    def run_stage(
        self,
        stage: int,
        embedding: Tensor,
        previous: StageOutput | None,
        size: Sequence[int],
    ) -> StageOutput:
        """Run the first heads of every block; see :meth:`ThinkingBackbone.run_stage`.

        Returns:
            Tokens (n, P + h w, d_i), maps (n, D, h, w) or pairs of them with (n, D), logits (n, K).
        """
        x = self.norm_pre(embedding)
        if previous is not None:
            x = x + self.recycle[stage - 1](previous.tokens)
        pruning = self.pruning
        run = pruning.start(stage, previous, self.grid(size)) if pruning else AllTokens()
        lends = pruning is not None and pruning.borrows(stage + 1)
        rope = self.rotary_table(size)
        hidden: list[Any] = [x]
        for index, block in enumerate(self.blocks):
            x, options = run.before_block(index, x)
            x = self._run(block, x, rope=run.positions(rope), **options)
            used = lends or index in self.out_indices
            hidden.append(run.scatter_back(x, index) if used else None)
        tokens = run.finish(x, self.norm)
        maps = [hidden[0]] if self.out_origin else []
        maps += [hidden[index + 1] for index in sorted({*self.out_indices})]
        if self.final_norm and len(self.blocks) - 1 in self.out_indices:
            maps[-1] = tokens
        return StageOutput(
            stage=stage,
            num_stages=self.num_stages,
            tokens=tokens,
            features=tuple(self._to_feature(x, size) for x in maps),
            logits=self.classify(tokens),
            keep_mask=run.keep_mask,
            hidden=tuple(hidden) if lends else (),
        )

    def rotary_table(self, size: Sequence[int]) -> Tensor | None:
        """Angles (P + h w, 2 head_dim) of the tokens of an image of (H, W) pixels.

        None without rotary position embedding; see :func:`.layers.rotary_table`.
        """
        if self.rope is None:
            return None
        return rotary_table(self.rope, self.grid(size), self.num_prefix_tokens)

    @property
    def out_channels(self) -> tuple[int, ...]:
        return (self.embed_dims,) * (len(set(self.out_indices)) + self.out_origin)

    @property
    def stage_channels(self) -> tuple[tuple[int, ...], ...]:
        """The width of each stage, once for each map."""
        return tuple((width,) * len(self.out_channels) for width in self.stage_dims)

    def keep_mask_shape(self, size: Sequence[int]) -> tuple[int, int, int] | None:
        return self.pruning.keep_mask_shape(self.grid(size)) if self.pruning else None

    def size_divisor(self) -> int:
        """Patch size; with token pruning an ExportError, see :class:`ThinkingBackbone`."""
        if self.pruning is not None:
            raise ExportError(
                f"{type(self.pruning).__name__} keeps a number of tokens that depends on the image "
                "size and is a constant of the graph"
            )
        return self.patch_size

    def pool(self, tokens: Tensor) -> Tensor:
        """Class token (n, d) of tokens (n, N, d)."""
        return tokens[:, 0]

    def group_matcher(self, coarse: bool = False) -> dict:
        """Group embedding and blocks, the last with the norm; see :class:`ThinkingBackbone`."""
        return dict(
            stem=r"^(?:cls_token|reg_token|pos_embed|patch_embed|norm_pre)",
            blocks=[(r"^blocks\.(\d+)", None), (r"^norm\.", (99999,))],
        )

    def _to_feature(self, x: Tensor, size: Sequence[int]) -> Tensor | tuple[Tensor, Tensor]:
        """Tokens (n, P + h w, d), zero-padded: map (n, D, h, w), or also class token (n, D)."""
        x = F.pad(x, (0, self.embed_dims - x.shape[-1]))
        spatial = x[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, self.grid(size))
        spatial = spatial.contiguous()  # as in mmseg: some heads call view()
        return (spatial, x[:, 0]) if self.output_cls_token else spatial

    def _add_positions(
        self, tokens: Tensor, channels: slice, size: Sequence[int], prefix: int
    ) -> Tensor:
        if self.pos_embed is None:
            return tokens
        return tokens + resample_abs_pos_embed(
            self.pos_embed[..., channels],
            self.grid(size),
            self.patch_embed.grid_size,
            num_prefix_tokens=prefix,
            interpolation=self.interpolate_mode,
            antialias=False,
        )

    def _reset_parameters(self) -> None:
        for parameter in (self.cls_token, self.reg_token, self.pos_embed):
            if parameter is not None:
                trunc_normal_(parameter, std=0.02)
        self._reset_linear()

    def _freeze(self, exclude: Sequence[str]) -> None:
        for name, parameter in self.named_parameters():
            if "all" not in exclude and not any(part in name for part in exclude):
                parameter.requires_grad = False
