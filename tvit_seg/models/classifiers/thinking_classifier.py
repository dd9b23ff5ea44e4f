"""Classifier that trains all thinking stages jointly and lets a gate choose at inference."""

import random
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from ...cost import stage_gmacs
from ...errors import DataError
from ...hub import HubMixin
from ...registry import MODELS, register
from ...thinking import Replay, Thought, think
from ...utils.checks import check, check_choice, check_integer, check_keys
from ...weights.load import load_pretrained
from ..backbones import ThinkingBackbone
from ..backbones.arguments import check_loss_weights, pretrained_init_cfg
from ..backbones.base import check_thinks
from ..gates import Gate
from ..joint_batch import JointLogs
from ..pruning import build_pruning_loss
from .distillation import Distillation


@register("MODELS")
class ThinkingClassifier(JointLogs, BaseModel, HubMixin):
    """Image classifier over a thinking backbone and its image-level head.

    Training runs every stage and adds up their weighted cross-entropies; each is logged, with its
    weight, under its stage. At inference the backbone's gate decides for each image, and the
    result's data sample carries ``exit_stage``, ``gate_entropy`` and ``gmacs``.

    Args:
        backbone: Config of a thinking backbone, or one, with ``num_classes`` and its gate.
        loss_weights: Weight of each stage's loss; None for the backbone's own.
        pruning_loss: Options of :class:`PruningLoss`, for a backbone with pruning.
        distill: Options of :class:`Distillation`, whose ``teacher`` is any classifier: soft targets
            for every stage, next to the labels or in place of them.
        label_smoothing: Share in [0, 1) of a label that goes to all classes evenly, after mixing.
        sandwich: With more than three stages: each step gives gradients to the first stage, the
            last, and one random stage in between, whose weight is multiplied by the number of
            stages in between, so that the expected loss is the joint one. The other stages run
            without gradients, since their tokens are recycled. With several processes, which all
            choose the same stage, this needs ``find_unused_parameters=True``.
        test_cfg: ``dict(per_stage=True)`` makes :meth:`predict` run every stage on every image and
            report the prediction of each, next to the gate's choice.
        data_preprocessor: As in mmengine; ``type`` is :class:`ClsDataPreProcessor` by default.
        pretrained: Deprecated spelling of ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH)`` reads DeiT, timm, mmseg, the authors'
            and our own weights.
    """

    shared_random: random.Random
    """Random numbers common to all processes; :class:`StepSeedHook` seeds it in every step."""

    def __init__(
        self,
        backbone: dict | ThinkingBackbone,
        loss_weights: Sequence[float] | None = None,
        pruning_loss: dict | None = None,
        distill: dict | None = None,
        label_smoothing: float = 0.0,
        sandwich: bool = False,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ):
        if isinstance(backbone, dict):
            backbone = MODELS.build(backbone)
        check_thinks(backbone)
        check_integer("backbone num_classes", backbone.num_classes)
        check(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "in [0, 1)")
        init_cfg = pretrained_init_cfg(pretrained, init_cfg)
        if init_cfg:
            check_choice("init_cfg type", init_cfg.get("type"), ("Pretrained",))
        if isinstance(data_preprocessor, dict):
            data_preprocessor = {"type": "ClsDataPreProcessor", **data_preprocessor}
            if data_preprocessor.get("mixup"):
                data_preprocessor.setdefault("num_classes", backbone.num_classes)
        super().__init__(data_preprocessor, init_cfg)
        reads = "one with mean and std, which distill undoes for its teacher; {} has ImageNet's"
        normalises = hasattr(self.data_preprocessor, "mean")
        check(distill is None or normalises, "data_preprocessor", data_preprocessor, reads)
        self.backbone = backbone
        if loss_weights is not None:
            backbone.loss_weights = check_loss_weights(loss_weights, self.num_stages)
        self.pruning_loss = build_pruning_loss(pruning_loss, backbone)
        self.distill = None if distill is None else Distillation(**distill)
        self.label_smoothing = label_smoothing
        self.sandwich = sandwich
        self.shared_random = random.Random(torch.initial_seed())
        self.test_cfg = dict(test_cfg or {})
        check_keys("test_cfg", self.test_cfg, ("per_stage",))

    def init_weights(self) -> None:
        """Initialise the backbone, then load the whole classifier if ``init_cfg`` names one."""
        self.backbone.init_weights()
        if cfg := self.init_cfg:
            load_pretrained(self, cfg["checkpoint"], cfg.get("prefix"), cfg.get("ema"))
        if self.pruning_loss is not None:
            self.pruning_loss.teacher.prepare(self.backbone)
        self._is_init = True

    @property
    def num_stages(self) -> int:
        """Number of thinking stages."""
        return self.backbone.num_stages

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[BaseDataElement] | None = None,
        mode: str = "tensor",
    ) -> Tensor | dict[str, Tensor] | list[BaseDataElement]:
        """Run the model in one of mmengine's three modes.

        Args:
            inputs: (B, 3, H, W), as the data preprocessor returns them.
            data_samples: With ``gt_label`` for ``'loss'``.
            mode: ``'tensor'`` for (B, K) logits of each image's exit stage, ``'loss'``
                for :meth:`loss`, ``'predict'`` for :meth:`predict`.
        """
        if mode == "loss":
            return self.loss(inputs, data_samples)
        if mode == "predict":
            return self.predict(inputs, data_samples)
        check_choice("mode", mode, ("tensor", "loss", "predict"))
        return self.think(inputs).logits  # type: ignore[return-value]  # it has a head

    # ---------------------------------------------------------------- training

    def loss(self, inputs: Tensor, data_samples: list[BaseDataElement]) -> dict[str, Tensor]:
        """Weighted cross-entropy of every stage, named ``stage{i}.loss``.

        Distillation adds ``stage{i}.loss_distill`` and ``stage{i}.loss_tokens``, a backbone with
        pruning ``pruning.*``.

        Args:
            inputs: (B, 3, H, W).
            data_samples: With ``gt_label``, or ``gt_score`` (K,) where labels were mixed.

        Raises:
            DataError: If a label is outside [0, K).
        """
        weights = self._step_weights()
        outputs = self.backbone.forward_stages(inputs, [w > 0 for w in weights])
        trained = [output for output in outputs if weights[output.stage]]
        losses = {}
        label_weight = 1.0 if self.distill is None else self.distill.label_weight
        if label_weight:
            target = self._target(data_samples)
            for output in trained:
                loss = F.cross_entropy(output.logits, target, label_smoothing=self.label_smoothing)
                losses[f"stage{output.stage}.loss"] = label_weight * weights[output.stage] * loss
        if self.distill is not None:
            pixels = inputs * self.data_preprocessor.std + self.data_preprocessor.mean
            found = self.distill(self.backbone, trained, pixels)
            for output, terms in zip(trained, found, strict=True):
                stage = output.stage
                losses.update({f"stage{stage}.{k}": weights[stage] * v for k, v in terms.items()})
        if self.pruning_loss is not None:
            stage = self.backbone.pruning.stage
            share = weights[stage] / self.backbone.loss_weights[stage]  # of the sandwich
            terms = self.pruning_loss(self.backbone, outputs, inputs) if share else {}
            losses.update({f"pruning.{name}": share * loss for name, loss in terms.items()})
        return losses

    def _step_weights(self) -> list[float]:
        """Loss weight of each stage in this step; 0 for those the sandwich leaves out."""
        weights = self.backbone.loss_weights
        between = range(1, self.num_stages - 1)
        if not self.sandwich or len(between) < 2:
            return weights
        chosen = self.shared_random.choice(between)
        shares = {0: 1, chosen: len(between), self.num_stages - 1: 1}
        return [weight * shares.get(stage, 0) for stage, weight in enumerate(weights)]

    def _target(self, data_samples: list[BaseDataElement]) -> Tensor:
        """(B,) labels, or (B, K) where they were mixed."""
        labels = torch.stack([sample.gt_label for sample in data_samples])
        classes = self.backbone.num_classes
        # on the CPU only: elsewhere the host would wait for the device
        if labels.device.type == "cpu" and not ((labels >= 0) & (labels < classes)).all():
            raise DataError(f"labels must be in [0, {classes}), got {labels.tolist()}")
        if "gt_score" in data_samples[0]:
            return torch.stack([sample.gt_score for sample in data_samples])
        return labels

    # --------------------------------------------------------------- inference

    def think(self, images: Tensor, gate: Gate | None = None) -> Thought:
        """Run stages until every image has exited.

        Args:
            images: (B, 3, H, W).
            gate: In place of the backbone's own.
        """
        return self.backbone.think(images, gate)

    def predict(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None = None
    ) -> list[BaseDataElement]:
        """Classify images.

        Args:
            inputs: (B, 3, H, W).
            data_samples: Receive the results; None creates new ones.

        Returns:
            Data samples with ``pred_score`` (K,) probabilities, ``pred_label``, ``exit_stage``,
            ``gate_entropy`` (number of stages,) in nats, NaN after the exit stage,
            ``gmacs``, the multiply-accumulates up to the exit in 10^9; with ``per_stage`` in
            ``test_cfg``, ``stage_scores`` (number of stages, K); if a stage is pruned,
            ``kept_tokens`` (L, h, w), the ``keep_mask`` of :class:`~tvit_seg.Thought`.
        """
        stage_scores = None
        if self.test_cfg.get("per_stage"):
            outputs = self.backbone.forward_stages(inputs)
            heads: list[Any] = [output.logits for output in outputs]
            logits = torch.stack(heads, dim=1)  # (B, n, K)
            stage_scores = logits.softmax(dim=-1)
            thought = think(Replay(outputs), inputs, self.backbone.gate)
        else:
            thought = self.think(inputs)
        logits, exits, entropies = thought.logits, thought.exit_stage, thought.entropy
        scores = logits.softmax(dim=-1)  # (B, K)
        costs = self.stage_gmacs(inputs.shape[-2:])[exits.cpu()]
        if data_samples is None:
            data_samples = [BaseDataElement() for _ in inputs]
        for i, sample in enumerate(data_samples):
            sample.set_field(scores[i], "pred_score")
            sample.set_field(scores[i].argmax(), "pred_label")
            sample.set_field(exits[i].cpu(), "exit_stage")
            sample.set_field(entropies[i].cpu(), "gate_entropy")
            sample.set_field(float(costs[i]), "gmacs")
            if thought.keep_mask is not None:
                sample.set_field(thought.keep_mask[i].cpu(), "kept_tokens")
            if stage_scores is not None:
                sample.set_field(stage_scores[i], "stage_scores")
        return data_samples

    def stage_gmacs(self, size: Sequence[int]) -> Tensor:
        """Cost of an image of (H, W) pixels, see :func:`tvit_seg.cost.stage_gmacs`."""
        return stage_gmacs(self, size)
