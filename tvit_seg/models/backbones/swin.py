"""ThinkingSwin: nested stages (https://arxiv.org/abs/2507.10800) in a pyramid of levels.

The transformer is Swin (https://arxiv.org/abs/2103.14030).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from timm.layers import calculate_drop_path_rates, to_2tuple
from torch import Tensor, nn
from torch.nn import functional as F

from ...registry import register
from ...thinking import StageOutput
from ...utils.checks import check, check_choice, check_integer
from ..gates import Gate
from ..layers import (
    NestedLayerNorm,
    NestedLinear,
    NestedPatchEmbed,
    NestedPatchMerging,
    RecycleMap,
    SwinBlock,
    SwinLevel,
)
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

# options of mmseg's SwinTransformer; Swin's weights need these values
_FIXED = dict(qk_scale=None, patch_norm=True, use_abs_pos_embed=False)

# numbers of groups, each cut on its own, of the rows of a joint query-key-value projection and of
# the columns of a patch merging
_GROUPS = dict(grouped=(3, 4), leading=(1, 1))


@register("MODELS")
class ThinkingSwin(ThinkingBackbone):
    """Swin transformer that runs its first attention heads first, and all only if needed.

    Stage i runs the first ``thinking_stages[i][l]`` heads of level l and the channels that belong
    to them, on the embedding plus the recycled last level of stage i - 1. The arguments are those
    of mmseg's ``SwinTransformer``, which it can replace; what mmseg calls a stage is a level here.

    Args:
        pretrain_img_size: Without effect, as there is no absolute position embedding.
        in_channels: Channels of the image.
        embed_dims: Full width of the first level; it doubles from level to level. None for
            32 x ``num_heads[0]``.
        patch_size: Side of the square patches in pixels, also as (side, side).
        window_size: Rows and columns of an attention window, in tokens.
        mlp_ratio: Hidden width of the perceptrons over their width, > 0.
        depths: Number of blocks at each level.
        num_heads: Attention heads of each level at full width; None to double from level to level,
            starting with those of the last thinking stage.
        strides: As in mmseg: ``patch_size``, then 2 for each further level. None for just that.
        out_indices: Levels returned as maps, each after a norm of its own; None for all, -1 is the
            last.
        qkv_bias: Adds a bias to query, key and value.
        drop_rate: Dropout rate after embedding and projections.
        attn_drop_rate: Dropout rate of attention weights.
        drop_path_rate: Stochastic depth rate of the last block, rising linearly from 0.
        act_cfg: Activation of the perceptrons.
        norm_cfg: Normalisation, ``type='LN'`` with its options.
        with_cp: Recomputes activations in the backward pass to save memory.
        pretrained: Deprecated spelling of ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        frozen_stages: -1 trains everything, 0 freezes the patch embedding, k also the first k
            levels and the merging after each.
        thinking_stages: For each thinking stage the attention heads of every level. From stage to
            stage no level loses heads and at least one gains. None for two stages as published:
            all heads of the first level and half of the others', then ``num_heads``; by default
            ((3, 3, 6, 12), (3, 6, 12, 24)).
        gate: Gate or its config; None always thinks to the end.
        num_classes: Classes of the image-level head on the mean token, which gates read; 0: none.
        loss_weights: Weight of each stage in the joint loss; None for equal weights.
        slicing: Slice of the query-key-value projection and the patch merging in a narrow stage.
            ``'grouped'``: the leading part of q, of k, of v, and of each merged patch, so that
            leading slices hold a whole narrow model. ``'leading'``: the leading part of all, after
            a norm of the patches at full width, as the authors' weights were trained.
        always_partition: Pads and shifts windows also on a level smaller than a window, as mmseg
            does; by default such a level is one window, as in timm.
        init_cfg: See :class:`ThinkingBackbone`.
        **fixed: Further arguments of mmseg's ``SwinTransformer``, accepted with the only value that
            is supported: ``qk_scale=None``, ``patch_norm=True``, ``use_abs_pos_embed=False``.
    """

    def __init__(
        self,
        pretrain_img_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        embed_dims: int | None = None,
        patch_size: int | Sequence[int] = 4,
        window_size: int = 7,
        mlp_ratio: float = 4,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        out_indices: int | Sequence[int] | None = None,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        act_cfg: dict = dict(type="GELU"),
        norm_cfg: dict = dict(type="LN"),
        with_cp: bool = False,
        pretrained: str | None = None,
        frozen_stages: int = -1,
        thinking_stages: Sequence[Sequence[int]] | None = None,
        gate: Gate | dict | None = None,
        num_classes: int = 0,
        loss_weights: Sequence[float] | None = None,
        slicing: str = "grouped",
        always_partition: bool = False,
        init_cfg: dict | list | None = None,
        **fixed,
    ):
        check_fixed("ThinkingSwin", fixed, _FIXED)
        depths = check_integers("depths", depths)
        levels = len(depths)
        check_integers("pretrain_img_size", to_2tuple(pretrain_img_size))
        patch_size = check_patch_size(patch_size)
        check_integer("window_size", window_size)
        check_rates(mlp_ratio, drop_path_rate)
        only = (patch_size,) + (2,) * (levels - 1)
        check(strides is None or tuple(strides) == only, "strides", strides, f"None or {only}")
        check_choice("slicing", slicing, _GROUPS)
        if thinking_stages is None:
            thinking_stages = _published_stages(num_heads, levels)
        fits = -1 <= frozen_stages <= levels
        check(fits, "frozen_stages", frozen_stages, f"in [-1, {levels}]")
        stages, num_heads = check_stages(thinking_stages, num_heads, levels)
        embed_dims = 32 * num_heads[0] if embed_dims is None else embed_dims
        check_integer("embed_dims", embed_dims)
        level_dims = tuple(embed_dims * 2**level for level in range(levels))
        divisors = f"divisors of {level_dims}, the widths of levels"
        divides = not any(width % n for width, n in zip(level_dims, num_heads, strict=True))
        check(divides, "num_heads", num_heads, divisors)
        init_cfg = pretrained_init_cfg(pretrained, init_cfg)
        super().__init__(len(stages), num_classes, gate, loss_weights, init_cfg)

        self.thinking_stages = stages
        self.embed_dims = embed_dims
        self.level_dims = level_dims
        self.stage_dims = tuple(
            tuple(d // n * h for d, n, h in zip(level_dims, num_heads, stage, strict=True))
            for stage in stages
        )
        self.patch_size = patch_size
        self.window_size = window_size
        self.slicing = slicing
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        out_indices = range(levels) if out_indices is None else out_indices
        self.out_indices = tuple(sorted(check_out_indices(out_indices, levels)))
        norm = norm_layer(norm_cfg)
        qkv_groups, merging_groups = _GROUPS[slicing]

        self.patch_embed = NestedPatchEmbed(
            None, patch_size, in_channels, embed_dims, flatten=False, norm_layer=norm
        )
        self.pos_drop = nn.Dropout(drop_rate)
        rates = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)

        self.layers = nn.ModuleList()
        for level, depth in enumerate(depths):
            width, heads = level_dims[level], num_heads[level]
            blocks = [
                SwinBlock(
                    width,
                    heads,
                    mlp_ratio,
                    drop=drop_rate,
                    drop_path=rates[level][index],
                    act_cfg=act_cfg,
                    norm=norm,
                    window_size=window_size,
                    shifted=index % 2 == 1,
                    always_partition=always_partition,
                    qkv_bias=qkv_bias,
                    qkv_groups=qkv_groups,
                    attn_drop=attn_drop_rate,
                )
                for index in range(depth)
            ]
            merging = None
            if level > 0:
                merging = NestedPatchMerging(width // 2, width, merging_groups, norm)
            self.layers.append(SwinLevel(blocks, merging))
        for level in self.out_indices:
            if level < levels - 1:
                self.add_module(f"norm{level}", norm(level_dims[level]))
        self.norm = norm(level_dims[-1])
        self.head = NestedLinear(level_dims[-1], num_classes) if num_classes else None
        self.recycle = nn.ModuleList(
            RecycleMap(narrow[-1], wide[0], 2 ** (levels - 1))
            for narrow, wide in pairwise(self.stage_dims)
        )
        self._reset_linear()
        self._freeze()

    def embed(self, images: Tensor, stage: int, embedding: Tensor | None = None) -> Tensor:
        """Patches, see :meth:`ThinkingBackbone.embed`.

        With ``slicing='grouped'`` they lack their norm, which :meth:`run_stage` takes over the
        channels of the stage; with ``'leading'`` they have it, over the full first level.

        Returns:
            (n, h, w, d_i), d_i the first level's width, (h, w) the grid of the padded image.
        """
        start = 0 if embedding is None else embedding.shape[-1]
        new = slice(start, self.stage_dims[stage][0])
        if embedding is not None and new.start == new.stop:
            return embedding
        if self.slicing == "leading":
            return self.patch_embed.norm(self.patch_embed(images))[..., : new.stop]
        patches = self.patch_embed(images, new)  # (n, h, w, d_i - d_{i-1})
        return patches if embedding is None else torch.cat((embedding, patches), dim=-1)

    def padded_size(self, size: Sequence[int]) -> list[int]:
        # deeper levels pad odd numbers of rows and columns themselves
        return [-(-length // self.patch_size) * self.patch_size for length in size]

    def run_stage(
        self,
        stage: int,
        embedding: Tensor,
        previous: StageOutput | None,
        size: Sequence[int],
    ) -> StageOutput:
        """Run the first heads of every block; see :meth:`ThinkingBackbone.run_stage`.

        Returns:
            Tokens (n, h', w', d'_i), one map (n, D_l, h_l, w_l) for each level of ``out_indices``,
            logits (n, K).
        """
        x = embedding if self.slicing == "leading" else self.patch_embed.norm(embedding)
        x = self.pos_drop(x)
        if previous is not None:
            # the scale, a float32 parameter, would take a stage under autocast to float32
            x = x + self.recycle[stage - 1](previous.tokens, x.shape[1:3]).to(x.dtype)
        maps, tokens = [], None
        for level, layer in enumerate(self.layers):
            x = layer(x, self.stage_dims[stage][level], self._run)  # (n, h_l, w_l, d_l)
            if level == len(self.layers) - 1:
                tokens = self.norm(x)
            if level in self.out_indices:
                maps.append(self._to_map(x, level, tokens))
        return StageOutput(
            stage=stage,
            num_stages=self.num_stages,
            tokens=tokens,
            features=tuple(maps),
            logits=self.classify(tokens),
        )

    @property
    def out_channels(self) -> tuple[int, ...]:
        return tuple(self.level_dims[level] for level in self.out_indices)

    @property
    def stage_channels(self) -> tuple[tuple[int, ...], ...]:
        """For each stage the width of each level returned as a map."""
        return tuple(tuple(dims[level] for level in self.out_indices) for dims in self.stage_dims)

    def pool(self, tokens: Tensor) -> Tensor:
        """Mean token (n, d) of tokens (n, h, w, d)."""
        return tokens.mean(dim=(1, 2))

    def group_matcher(self, coarse: bool = False) -> dict:
        """Group embedding, blocks with their merging, and norms; see :class:`ThinkingBackbone`."""
        return dict(
            stem=r"^patch_embed",
            blocks=r"^layers\.(\d+)"
            if coarse
            else [
                (r"^layers\.(\d+)\.downsample", (0,)),
                (r"^layers\.(\d+)\.blocks\.(\d+)", None),
                (r"^norm", (99999,)),
            ],
        )

    def train(self, mode: bool = True) -> "ThinkingSwin":
        """Set the mode; frozen levels stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def _map_norm(self, level: int) -> NestedLayerNorm:
        """Norm before a map; the last level's is the final norm, before the image-level head."""
        return self.norm if level == len(self.layers) - 1 else getattr(self, f"norm{level}")

    def _to_map(self, x: Tensor, level: int, final: Tensor | None) -> Tensor:
        """Tokens (n, h, w, d) as a normed map (n, D, h, w), zero-padded to the full width.

        ``final`` are the last level's after the final norm.
        """
        x = self._map_norm(level)(x) if final is None else final
        x = F.pad(x, (0, self.level_dims[level] - x.shape[-1]))
        # contiguous as in mmseg: some heads call view()
        return x.permute(0, 3, 1, 2).contiguous()

    def _freeze(self) -> None:
        count = self.frozen_stages
        if count < 0:
            return
        frozen = [self.patch_embed, self.pos_drop, *self.layers[:count]]
        frozen += [layer.downsample for layer in self.layers[1 : count + 1]]
        frozen += [self._map_norm(level) for level in self.out_indices if level < count]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)


def _published_stages(num_heads: Sequence[int] | None, levels: int) -> tuple:
    """All heads of the first level and half of the others'; then all heads."""
    wide = tuple(num_heads or (3 * 2**level for level in range(levels)))
    return (wide[:1] + tuple(max(1, heads // 2) for heads in wide[1:]), wide)


def check_stages(
    thinking_stages: Sequence[Sequence[int]], num_heads: Sequence[int] | None, levels: int
) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Return the heads of each stage at each level, and the heads at full width."""
    name = "thinking_stages"
    fits = isinstance(thinking_stages, Sequence) and len(thinking_stages) > 0
    check(fits, name, thinking_stages, "a list, for each stage, of the heads of every level")
    stages = tuple(check_integers(f"{name}[{i}]", heads) for i, heads in enumerate(thinking_stages))
    if num_heads is None:
        num_heads = [stages[-1][0] * 2**level for level in range(levels)]
    full = check_integers("num_heads", num_heads)
    for heads in (full, *stages):
        check(len(heads) == levels, "number of heads", heads, f"one for each of {levels} levels")
    for index, (narrow, wide) in enumerate(pairwise((*stages, full)), start=1):
        fits = all(a <= b for a, b in zip(narrow, wide, strict=True))
        fits = fits and (narrow != wide or index == len(stages))
        check(fits, name, stages, f"increasing, no level losing heads, within num_heads={full}")
    return stages, full
