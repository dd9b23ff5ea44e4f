"""mmseg's decode heads in two steps: logits at their own resolution, and upsampling."""

from collections.abc import Sequence
from typing import Any

from mmseg.models.decode_heads import DAHead, EncHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from ...thinking import Features

_PREDICT = {head.predict for head in (BaseDecodeHead, DAHead, EncHead)}
"""Ways of predicting that upsample the (first) output of ``forward`` and do nothing else."""


def has_two_steps(head: nn.Module) -> bool:
    """Return whether a head predicts by upsampling what its ``forward`` gives."""
    kind: Any = type(head)
    upsamples = getattr(kind, "predict_by_feat", None) is BaseDecodeHead.predict_by_feat
    return upsamples and kind.predict in _PREDICT


def coarse_logits(
    head: nn.Module, features: Features, size: Sequence[int], test_cfg: dict
) -> Tensor:
    """Logits (n, K, h, w) at the head's own resolution.

    A head without two steps gives those at the padded input size (H, W).
    """
    if not has_two_steps(head):
        return head.predict(features, _metas(size), test_cfg)
    outputs = head(features)
    return outputs[0] if isinstance(outputs, tuple) else outputs


def upsample(head: nn.Module, logits: Tensor, size: Sequence[int]) -> Tensor:
    """Upsample coarse logits to the padded input size (H, W), as the head does."""
    return head.predict_by_feat(logits, _metas(size)) if has_two_steps(head) else logits


def _metas(size: Sequence[int]) -> list[dict]:
    # heads read only the first; one per image would make the batch size of a graph a constant
    return [dict(img_shape=size, pad_shape=size)]
