"""Preprocessing of a batch of images for classifiers, with timm's random erasing and mixup."""

import inspect
from collections.abc import Sequence
from numbers import Real

import torch
from mmengine.model import BaseDataPreprocessor, stack_batch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from ...errors import DataError
from ...registry import register
from ...utils.checks import check, check_integer, check_number

_MEAN = tuple(255 * value for value in IMAGENET_DEFAULT_MEAN)
_STD = tuple(255 * value for value in IMAGENET_DEFAULT_STD)


@register("MODELS")
class ClsDataPreProcessor(BaseDataPreprocessor):
    """Stack and normalise images, and in training erase and mix them on the model's device.

    The order is timm's and DeiT's: normalise, erase, mix. Mixed labels go to each data sample as
    ``gt_score`` (K,), next to its ``gt_label``.

    Args:
        mean: Of each channel, for pixels in [0, 255].
        std: Of each channel, likewise.
        random_erasing: Arguments of timm's ``RandomErasing``, e.g. ``dict(probability=0.25,
            mode='pixel')``; None for none.
        mixup: Arguments of timm's ``Mixup``, e.g. ``dict(mixup_alpha=0.8, cutmix_alpha=1.0)``; None
            for none. It does not smooth labels: :class:`ThinkingClassifier` does.
        num_classes: Number of classes K, which ``mixup`` needs; :class:`ThinkingClassifier` fills
            it in.
    """

    def __init__(
        self,
        mean: Sequence[float] = _MEAN,
        std: Sequence[float] = _STD,
        random_erasing: dict | None = None,
        mixup: dict | None = None,
        num_classes: int | None = None,
        non_blocking: bool = False,
    ):
        super().__init__(non_blocking)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        _check_numbers("random_erasing", random_erasing, RandomErasing)
        _check_numbers("mixup", mixup, Mixup)
        self.erase = None if random_erasing is None else RandomErasing(**random_erasing)
        self.mix = None if mixup is None else _build_mixup(mixup, num_classes)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch.

        Args:
            data: ``inputs``, a list of (3, H, W) images or a (B, 3, H, W) tensor, RGB in [0, 255];
                ``data_samples`` with ``gt_label``, or none.
            training: Erases and mixes.

        Returns:
            The same with ``inputs`` (B, 3, H, W), normalised; smaller images are padded with 0 on
            the right and bottom.

        Raises:
            DataError: If ``mixup`` gets an odd number of images.
        """
        data = self.cast_data(data)
        inputs, samples = data["inputs"], data.get("data_samples")
        if not isinstance(inputs, Tensor):
            inputs = [(image.float() - self.mean) / self.std for image in inputs]
            inputs = stack_batch(inputs)
        else:
            inputs = (inputs.float() - self.mean) / self.std
        if training and self.erase is not None:
            self.erase.device = inputs.device
            inputs = self.erase(inputs)
        if training and self.mix is not None:
            inputs, samples = self._mix(self.mix, inputs, samples)
        return {**data, "inputs": inputs, "data_samples": samples}

    def _mix(self, mix: Mixup, inputs: Tensor, samples: list) -> tuple[Tensor, list]:
        if len(inputs) % 2:
            raise DataError(
                f"mixup pairs images and needs an even batch, this one has {len(inputs)}: choose "
                "an even train_dataloader.batch_size, and set drop_last=True there"
            )
        labels = torch.stack([sample.gt_label for sample in samples])
        inputs, scores = mix(inputs, labels)
        for sample, score in zip(samples, scores, strict=True):
            sample.set_field(score, "gt_score")
        return inputs, samples


def _check_numbers(name: str, options: dict | None, cls: type) -> None:
    """Check options that are numbers by default; probabilities must be in [0, 1]."""
    defaults = {key: p.default for key, p in inspect.signature(cls).parameters.items()}
    for key, value in (options or {}).items():
        if "prob" in key:
            check_number(f"{name} {key}", value, maximum=1)
        elif type(defaults.get(key)) in (int, float):
            check(isinstance(value, Real), f"{name} {key}", value, "a number")


def _build_mixup(options: dict, num_classes: int | None) -> Mixup:
    check_integer("data_preprocessor num_classes", num_classes)
    smoothing = options.get("label_smoothing")
    allowed = "0: ThinkingClassifier has a label_smoothing, which smooths mixed labels too"
    check(not smoothing, "mixup label_smoothing", smoothing, allowed)
    return Mixup(**{**options, "label_smoothing": 0.0, "num_classes": num_classes})
