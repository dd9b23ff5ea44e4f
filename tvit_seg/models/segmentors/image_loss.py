"""Image-level loss for segmentation: it trains the prediction that gates read."""

import torch.nn.functional as F
from torch import Tensor, nn

from ...utils.checks import check_choice, check_number


class ImageLoss(nn.Module):
    """Loss between the image-level prediction and the classes in the label map.

    Args:
        target: ``'presence'``: the classes that occur, multi-label with sigmoid and binary
            cross-entropy. ``'histogram'``: the share of pixels of each class, with softmax and
            cross-entropy. Ignored pixels count for neither.
        loss_weight: Factor of the loss, >= 0.
        ignore_index: Label of pixels to leave out.
    """

    def __init__(self, target: str = "presence", loss_weight: float = 1.0, ignore_index: int = 255):
        super().__init__()
        self.target = check_choice("image_loss target", target, ("presence", "histogram"))
        self.loss_weight = check_number("image_loss loss_weight", loss_weight)
        self.ignore_index = ignore_index

    @property
    def use_sigmoid(self) -> bool:
        """True for a multi-label prediction."""
        return self.target == "presence"

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss.

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
    counts = flat.new_zeros(len(flat), num_classes)  # integers, exact for images of any size
    counts.scatter_add_(1, flat.where(valid, 0), valid.long())
    return counts / valid.sum(1, keepdim=True).clamp(min=1)
