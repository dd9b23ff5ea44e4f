"""From a batch of images to what a classifier trains on: normalised, erased and mixed by timm."""

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


@register("MODELS")
class ClsDataPreProcessor(BaseDataPreprocessor):
    """Stacks and normalises images, and in training erases and mixes them on the model's device.

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
        non_blocking: As in mmengine.

    Raises:
        ValueError: If ``mixup`` is given without ``num_classes``, or asked to smooth labels, or one
            of its options or of ``random_erasing`` is no number where it must be, or no
            probability.
    """

    def __init__(
        self,
        mean: Sequence[float] = tuple(255 * value for value in IMAGENET_DEFAULT_MEAN),
        std: Sequence[float] = tuple(255 * value for value in IMAGENET_DEFAULT_STD),
        random_erasing: dict | None = None,
        mixup: dict | None = None,
        num_classes: int | None = None,
        non_blocking: bool = False,
    ):
        super().__init__(non_blocking)
        if len(mean) != len(std):
            raise ValueError(f"mean={mean} and std={std} must have one entry for each channel")
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        _check_numbers("random_erasing", random_erasing, RandomErasing)
        _check_numbers("mixup", mixup, Mixup)
        self.erase = None if random_erasing is None else RandomErasing(**random_erasing)
        self.mix = None if mixup is None else _build_mixup(mixup, num_classes)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepares a batch.

        Args:
            data: ``inputs``, a list of (3, H, W) images or a (B, 3, H, W) tensor, RGB in [0, 255];
                ``data_samples`` with ``gt_label``, or none.
            training: Whether to erase and mix.

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
            inputs, samples = self._mix(inputs, samples)
        return {**data, "inputs": inputs, "data_samples": samples}

    def _mix(self, inputs: Tensor, samples: list) -> tuple[Tensor, list]:
        if len(inputs) % 2:
            raise DataError(
                f"mixup pairs images and needs an even batch, this one has {len(inputs)}: choose "
                "an even train_dataloader.batch_size, and set drop_last=True there"
            )
        labels = torch.stack([sample.gt_label for sample in samples])
        inputs, scores = self.mix(inputs, labels)
        for sample, score in zip(samples, scores, strict=True):
            sample.set_field(score, "gt_score")
        return inputs, samples


def _check_numbers(name: str, options: dict | None, cls: type) -> None:
    """Refuses other things than numbers where a class has numbers by default; probabilities > 1."""
    defaults = {key: p.default for key, p in inspect.signature(cls).parameters.items()}
    for key, value in (options or {}).items():
        if type(defaults.get(key)) in (int, float) and not isinstance(value, Real):
            raise ValueError(f"{name} {key}={value!r} must be a number")
        if "prob" in key and not 0 <= value <= 1:
            raise ValueError(f"{name} {key}={value!r} must lie in [0, 1]")


def _build_mixup(options: dict, num_classes: int | None) -> Mixup:
    if num_classes is None:
        raise ValueError("mixup needs num_classes in the data preprocessor")
    if options.get("label_smoothing"):
        raise ValueError(
            f"mixup label_smoothing={options['label_smoothing']}: set label_smoothing in the "
            "ThinkingClassifier instead, which smooths mixed labels just the same"
        )
    return Mixup(**{**options, "label_smoothing": 0.0, "num_classes": num_classes})
