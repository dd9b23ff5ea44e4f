"""Image-level loss for segmentation: it teaches the prediction that gates read."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ImageLoss(nn.Module):
    """Compares the image-level prediction with what the label map says about the whole image.

    Args:
        target: ``'presence'``: which classes occur, multi-label with sigmoid and binary
            cross-entropy. ``'histogram'``: the share of pixels of each class, with softmax and
            cross-entropy. Ignored pixels count for neither.
        loss_weight: Factor of the loss.
        ignore_index: Label of pixels to leave out.

    Raises:
        ValueError: If ``target`` is neither, or ``loss_weight`` is negative.
    """

    def __init__(self, target: str = "presence", loss_weight: float = 1.0, ignore_index: int = 255):
        super().__init__()
        if target not in ("presence", "histogram"):
            raise ValueError(f"image_loss target={target!r} must be 'presence' or 'histogram'")
        if not loss_weight >= 0:
            raise ValueError(f"image_loss loss_weight={loss_weight} must be >= 0")
        self.target = target
        self.loss_weight = loss_weight
        self.ignore_index = ignore_index

    @property
    def use_sigmoid(self) -> bool:
        """Whether the prediction it trains is multi-label."""
        return self.target == "presence"

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss.

        Args:
            logits: (B, K) image-level prediction.
            labels: (B, H, W) label map.

        Returns:
            Scalar. Images without a labelled pixel count as 0.
        """
        shares = class_shares(labels, logits.shape[1], self.ignore_index)  # (B, K)
        if self.use_sigmoid:
            presence = (shares > 0).to(logits)
            loss = F.binary_cross_entropy_with_logits(logits, presence, reduction="none").mean(1)
        else:
            loss = -(shares.to(logits) * logits.log_softmax(dim=1)).sum(1)
        labelled = (shares.sum(1) > 0).to(loss)
        return self.loss_weight * (loss * labelled).mean()


def class_shares(labels: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Share of each class among the labelled pixels of each image.

    Args:
        labels: (B, H, W) integer label map.
        num_classes: Number of classes K.
        ignore_index: Label of pixels to leave out.

    Returns:
        (B, K); rows sum to 1, or to 0 where no pixel is labelled.
    """
    flat = labels.flatten(1).long()
    valid = flat != ignore_index
    counts = torch.zeros(len(flat), num_classes, device=labels.device)
    counts.scatter_add_(1, flat.where(valid, 0), valid.float())
    return counts / valid.sum(1, keepdim=True).clamp(min=1)
