"""Attention inside shifted windows (https://arxiv.org/abs/2103.14030), at any width."""

from collections.abc import Sequence

import torch
from timm.layers import to_2tuple, trunc_normal_
from timm.models.swin_transformer import (
    get_relative_position_index,
    window_partition,
    window_reverse,
)
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import NestedAttention


class NestedWindowAttention(NestedAttention):
    """Attend inside windows, with a learned bias for each relative position and head.

    A map is padded with zeros on the right and bottom to a multiple of the window, then shifted, as
    in mmseg. A level no larger than a window is a single window and is not shifted, as in timm.

    Args:
        dim: Full width.
        num_heads: Heads at full width.
        window_size: Rows and columns of a window, or one number for both.
        shifted: Shifts windows by half of their size.
        always_partition: Pads and shifts windows also on levels smaller than a window, as in
            mmseg.
        **kwargs: Further arguments of :class:`NestedAttention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int | Sequence[int] = 7,
        shifted: bool = False,
        always_partition: bool = False,
        **kwargs,
    ):
        super().__init__(dim, num_heads, **kwargs)
        self.window_size = to_2tuple(window_size)
        self.shift_size = tuple(w // 2 if shifted else 0 for w in self.window_size)
        self.always_partition = always_partition
        rows, columns = self.window_size
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * rows - 1) * (2 * columns - 1), num_heads)
        )
        trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer(
            "relative_position_index", get_relative_position_index(rows, columns), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Attend inside each window of a map (B, h, w, d), d a multiple of the head width."""
        if x.shape[0] == 0:  # timm's helpers infer the batch size, which fails for an empty batch
            return x
        height, width, channels = x.shape[1:]
        window, shift = self.fit_window((height, width))
        bottom, right = -height % window[0], -width % window[1]
        if bottom or right:
            x = F.pad(x, (0, 0, 0, right, 0, bottom))
        size = (height + bottom, width + right)
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), dims=(1, 2))
        windows = window_partition(x, window).flatten(1, 2)  # (B W, N, d), N = positions in one
        bias = self.position_bias(window, channels // self.head_dim)  # (1, heads, N, N)
        if any(shift):
            apart = shift_mask(size, window, shift, x.device)  # (W, 1, N, N)
            bias = bias.masked_fill(apart, float("-inf"))  # (W, heads, N, N)
            bias = bias.repeat(x.shape[0], 1, 1, 1)  # (B W, heads, N, N)
        windows = super().forward(windows, attn_mask=bias)
        x = window_reverse(windows, window, *size)  # (B, h, w, d) of the completed map
        if any(shift):
            x = x.roll(shift, dims=(1, 2))
        return x[:, :height, :width]

    def fit_window(self, size: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Window and shift, each (rows, columns), on a map of (h, w) tokens."""
        if self.always_partition:
            return self.window_size, self.shift_size
        window = tuple(map(min, self.window_size, size))
        shift = tuple(
            0 if length <= w else s
            for length, w, s in zip(size, window, self.shift_size, strict=True)
        )
        return window, shift

    def position_bias(self, window: Sequence[int], heads: int) -> Tensor:
        """Bias (1, heads, N, N) of the first heads in a window of N = rows x columns tokens."""
        index = self.relative_position_index
        if tuple(window) != self.window_size:
            rows, columns = window
            index = index.reshape(self.window_size * 2)[:rows, :columns, :rows, :columns]
        area = window[0] * window[1]
        bias = self.relative_position_bias_table[index.flatten(), :heads]  # (N N, heads)
        return bias.T.reshape(1, heads, area, area)


_MASKS: dict[tuple, Tensor] = {}
_MOST_MASKS = 32


def shift_mask(
    size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], device: torch.device
) -> Tensor:
    """Mask of positions that are adjacent only by the cyclic shift; computed once per size.

    Args:
        size: (h, w) of the map, multiples of the window.
        window: Rows and columns of a window.
        shift: Rows and columns that the map was shifted to the top and left.
        device: Device of the mask.

    Returns:
        (W, 1, N, N) bool, for each of the W windows and each two of its N positions.
    """
    if torch.compiler.is_compiling():
        return _make_mask(size, window, shift, device)
    key = (size, window, shift, device)
    if key not in _MASKS:
        mask = _make_mask(*key)
        if type(mask) is not Tensor:  # a fake tensor while a graph is traced
            return mask
        if len(_MASKS) == _MOST_MASKS:
            del _MASKS[next(iter(_MASKS))]
        _MASKS[key] = mask
    return _MASKS[key]


@torch.inference_mode(False)  # else a mask cached in inference mode could not be used in training
def _make_mask(
    size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], device: torch.device
) -> Tensor:
    wrapped = []
    for length, step in zip(size, shift, strict=True):
        wrapped.append(torch.arange(length, device=device) >= length - step)
    region = 2 * wrapped[0][:, None].int() + wrapped[1].int()  # (h, w)
    region = window_partition(region[None, ..., None], window).flatten(1)  # (W, N)
    return (region[:, None] != region[..., None])[:, None]  # (W, 1, N, N)
