"""A linear projection of every map, for heads that would normalise zero-padded channels."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from ..registry import register


@register("MODELS")
class ProjectionNeck(BaseModule):
    """A 1 x 1 convolution for each map.

    Narrow features fill their leading channels only, so that each stage goes through the columns of
    the weight that belong to it, and leaves with all channels filled.

    Args:
        in_channels: Channels of each map.
        out_channels: Channels of all maps that leave.
        init_cfg: As in mmengine.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        init_cfg: dict | list | None = dict(type="Xavier", layer="Conv2d", distribution="uniform"),
    ):
        super().__init__(init_cfg)
        self.convs = nn.ModuleList(nn.Conv2d(width, out_channels, 1) for width in in_channels)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Projects maps (B, C_i, H_i, W_i) to (B, out_channels, H_i, W_i)."""
        if len(features) != len(self.convs):
            raise ValueError(
                f"ProjectionNeck has in_channels for {len(self.convs)} maps, the backbone returns "
                f"{len(features)}"
            )
        return tuple(conv(x) for conv, x in zip(self.convs, features, strict=True))
