"""Segmentor that trains all thinking stages jointly and lets a gate choose at inference."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmengine import ConfigDict
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor

from ...cost import stage_gmacs
from ...hub import HubMixin
from ...registry import register
from ...thinking import Decode, Features, Thought
from ...utils.checks import check, check_choice
from ...utils.modes import evaluating
from ...weights.load import load_pretrained, strict_loading
from ..backbones.arguments import check_loss_weights
from ..backbones.base import check_thinks
from ..decode_heads import coarse_logits, has_two_steps, nest_heads, upsample
from ..gates import EntropyGate, Gate
from ..joint_batch import JointLogs, average_jointly
from ..layers import fuse_attention
from ..pruning import UncertaintyPruning, build_pruning_loss
from .class_map import class_map
from .head_check import check_head_configs, check_heads
from .image_logits import ImageLogits
from .image_loss import ImageLoss
from .labels import pad_labels, require_labels
from .losses import mend_losses
from .postprocess import label_map, to_original_size
from .same_sizes import step_by_size
from .windows import Windows, check_pair, check_test_cfg


@register("MODELS")
class ThinkingEncoderDecoder(JointLogs, EncoderDecoder, HubMixin):
    """mmseg's ``EncoderDecoder`` for backbones that think.

    Training runs every stage and adds up their weighted losses; each is logged under its stage.
    At inference the backbone's gate decides for each image (each window in ``slide`` mode), and the
    result's data sample carries ``exit_stage``, ``gate_entropy``, ``windows`` and ``gmacs``.

    Args:
        backbone: Config of a thinking backbone, with its gate.
        decode_head: Config of any mmseg decode head; it reads maps of full width unless nested.
        auxiliary_head: As in mmseg; one or several, at every stage.
        loss_weights: Weight of each stage's losses; None for the backbone's own.
        image_loss: Options of :class:`ImageLoss`, which trains the class token; None freezes the
            image-level head as loaded.
        pruning_loss: Options of :class:`PruningLoss`, for a backbone with pruning.
        test_cfg: As in mmseg, plus ``window_batch_size``, the number of sliding windows at once,
            and ``seg_logits``: False leaves logits at the original size out of results.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH)`` reads weights of a whole segmentor,
            ours, the authors' or mmseg's Segmenter.
        nested_head: Whether neck and heads follow the width of each stage; ``'auto'`` keeps
            zero-padding, with a warning, for those that cannot.

    Raises:
        ConfigError: If backbone, heads, gate, loss weights or windows do not fit together.
    """

    init_cfg: dict | None

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        neck: dict | None = None,
        auxiliary_head: dict | list | None = None,
        loss_weights: Sequence[float] | None = None,
        image_loss: dict | None = None,
        pruning_loss: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
        nested_head: bool | str = False,
    ):
        check(isinstance(backbone, Mapping), "backbone", backbone, "a config")
        backbone = ConfigDict(backbone)
        check_test_cfg(test_cfg or {})
        # set below, where a decode head exists
        gate, pruning = (backbone.pop(name, None) for name in ("gate", "pruning"))
        check_head_configs("decode_head", [decode_head])
        others = auxiliary_head if isinstance(auxiliary_head, Sequence) else [auxiliary_head]
        check_head_configs("auxiliary_head", [head for head in others if head is not None])
        super().__init__(
            backbone,
            decode_head,
            neck=neck,
            auxiliary_head=auxiliary_head,
            train_cfg=train_cfg,
            test_cfg=ConfigDict(test_cfg or {}),
            data_preprocessor=data_preprocessor,
            pretrained=pretrained,
            init_cfg=init_cfg,
        )
        check_thinks(self.backbone)
        check_heads(self)
        self.backbone.set_gate(gate, has_decode_head=True)
        self._check_resolution(self.backbone.gate.measure)
        self.backbone.set_pruning(pruning, has_decode_head=True)
        if isinstance(self.backbone.pruning, UncertaintyPruning):
            self.shared_random = self.backbone.pruning.shared_random  # for reproducible training
        fuse_attention(self.decode_head)
        nest_heads(self, nested_head)
        mend_losses(self)
        average_jointly(self)
        if loss_weights is not None:
            self.backbone.loss_weights = check_loss_weights(loss_weights, self.num_stages)
        self.image_loss = None
        if image_loss is not None:
            ignore = dict(ignore_index=self.decode_head.ignore_index)
            self.image_loss = ImageLoss(**{**ignore, **image_loss})
            self._check_image_head()
        elif self.backbone.head is not None:
            self.backbone.head.requires_grad_(False)  # no loss trains it
        self.pruning_loss = build_pruning_loss(pruning_loss, self.backbone)
        if (size := getattr(self.data_preprocessor, "size", None)) is not None:
            check_pair("data_preprocessor size", size)

    def val_step(self, data: dict) -> list[SegDataSample]:
        """Predict a batch from a dataloader, of images of any sizes."""
        return step_by_size(super().val_step, data)

    def test_step(self, data: dict) -> list[SegDataSample]:
        """Predict a batch from a dataloader, of images of any sizes."""
        return step_by_size(super().test_step, data)

    def init_weights(self) -> None:
        """Initialise as mmseg does; a checkpoint of the whole segmentor is converted."""
        init_cfg, self.init_cfg = self.init_cfg, None
        with strict_loading():  # an ``init_cfg`` of a head is mmengine's to load
            super().init_weights()
        self.init_cfg = init_cfg
        if init_cfg:
            check_choice("init_cfg type", init_cfg.get("type"), ("Pretrained",))
            load_pretrained(
                self, init_cfg["checkpoint"], init_cfg.get("prefix"), init_cfg.get("ema")
            )
        if self.pruning_loss is not None:
            self.pruning_loss.teacher.prepare(self.backbone)

    @property
    def num_stages(self) -> int:
        """Number of thinking stages."""
        return self.backbone.num_stages

    @property
    def window_batch_size(self) -> int:
        """Number of sliding windows at once."""
        return self.test_cfg.get("window_batch_size", 8)

    # ---------------------------------------------------------------- training

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Weighted losses of every stage, named ``stage{i}.decode.*``, ``.aux.*``, ``.image.*``.

        A backbone with pruning adds ``pruning.*``.

        Args:
            inputs: (B, 3, H, W).
            data_samples: With ``gt_sem_seg``.
        """
        require_labels(data_samples)
        inputs, data_samples = self._pad(inputs, data_samples)
        losses = {}
        outputs = self.backbone.forward_stages(inputs, decode=self.decoder(inputs))
        for output in outputs:
            features = self._neck(output.features)
            found = self._decode_head_forward_train(features, data_samples)
            if self.with_auxiliary_head:
                found.update(self._auxiliary_head_forward_train(features, data_samples))
            if self.image_loss is not None:
                labels = torch.cat([sample.gt_sem_seg.data for sample in data_samples])
                found["image.loss"] = self.image_loss(output.logits, labels)
            weighted = _scale_losses(found, self.backbone.loss_weights[output.stage])
            losses.update(add_prefix(weighted, f"stage{output.stage}"))
        if self.pruning_loss is not None:
            reader = self.image_loss or self.backbone.gate
            use_sigmoid = getattr(reader, "use_sigmoid", False)
            found = self.pruning_loss(self.backbone, outputs, inputs, use_sigmoid)
            losses.update(add_prefix(found, "pruning"))
        return losses

    def _pad(
        self, inputs: Tensor, data_samples: list[SegDataSample]
    ) -> tuple[Tensor, list[SegDataSample]]:
        """Complete patches at the border: images with zeros, labels with ignored pixels."""
        height, width = inputs.shape[-2:]
        bottom, right = (p - s for p, s in zip(self._padded(inputs), (height, width), strict=True))
        if not bottom and not right:
            return inputs, data_samples
        margin = (0, right, 0, bottom)
        labels = pad_labels(data_samples, margin, self.decode_head.ignore_index)
        return F.pad(inputs, margin), labels

    def _padded(self, inputs: Tensor) -> list[int]:
        return self.backbone.padded_size(inputs.shape[-2:])

    # --------------------------------------------------------------- inference

    def think(self, images: Tensor, gate: Gate | None = None) -> Thought:
        """Run stages until every image has exited; decode unless the gate has decoded already.

        Args:
            images: (B, 3, H, W).
            gate: In place of the backbone's own.

        Returns:
            The thought; its ``seg_logits`` are (B, K, H, W).
        """
        decode = self.decoder(images)
        thought = self.backbone.think(images, gate, decode)
        thought.seg_logits = decode.seg_logits(thought)[..., : images.shape[-2], : images.shape[-1]]
        return thought

    def decoder(self, images: Tensor) -> Decode:
        """Decode head for images (B, 3, H, W): features to logits at the padded size."""
        size = torch.Size(self._padded(images))

        def coarse(features: Features) -> Tensor:
            # in training, prunings read logits as at inference
            with evaluating(self) if self.training else nullcontext():
                maps = self._neck(features)
                return coarse_logits(self.decode_head, maps, size, self.test_cfg)

        return Decode(coarse, partial(upsample, self.decode_head, size=size))

    def predict(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Segment images.

        Args:
            inputs: (B, 3, H, W).
            data_samples: Provide metainfo and receive the results; None creates new ones.

        Returns:
            Data samples with ``pred_sem_seg`` and ``seg_logits`` as in mmseg, and, with W windows
            (1 in ``whole`` mode): ``exit_stage`` (W,), a scalar tensor in ``whole`` mode;
            ``gate_entropy`` (W, number of stages) in nats, NaN where not run, (number of stages,)
            in ``whole`` mode; ``windows`` (W, 4) top, left, bottom, right as shares of the image;
            ``gmacs``, the multiply-accumulates spent on the image in 10^9. The metainfo has the
            gate's threshold, if there is one, as ``gate_threshold``. Where a stage was
            pruned, ``kept_tokens`` (W, L, h, w), (L, h, w) in ``whole`` mode: the keep masks of L
            prunings, NaN for images or windows that exited before; ``patch_size`` in their metainfo
            is that of the tokens in pixels.
        """
        windows = self.windows(inputs)
        seg_logits, exits, entropies, kept = self._segment(inputs, windows)
        results = self.postprocess_result(seg_logits, data_samples)
        costs = self.stage_gmacs(windows)[exits.cpu()]  # (B, W)
        threshold = getattr(self.backbone.gate, "threshold", None)
        for i, sample in enumerate(results):
            mine = i if self._slides else (i, 0)
            sample.set_field(exits[mine].cpu(), "exit_stage")
            sample.set_field(entropies[mine].cpu(), "gate_entropy")
            sample.set_field(windows.shares(sample.metainfo), "windows")
            sample.set_field(float(costs[i].sum()), "gmacs")
            if threshold is not None:
                sample.set_metainfo(dict(gate_threshold=threshold))
            if kept is not None:
                sample.set_field(kept[mine].cpu(), "kept_tokens")
                sample.set_metainfo(dict(patch_size=self.backbone.patch_size))
        return results

    def _segment(self, inputs: Tensor, windows: Windows) -> tuple[list[ImageLogits], Any, Any, Any]:
        """Logits of B images, and of all windows exits (B, W), entropies (B, W, stages), masks.

        The last are keep masks (B, W, L, h, w), or None.
        """
        parts = []
        for crops in windows.crops(inputs, self.window_batch_size):
            decode = self.decoder(crops)
            thought = self.backbone.think(crops, decode=decode)
            coarse = decode.coarse_logits(thought)
            parts.append((coarse, thought.exit_stage, thought.entropy, thought.keep_mask))
        shape = (len(inputs), len(windows))
        coarse, exits, entropies, kept = (
            None if part[0] is None else torch.cat(part).unflatten(0, shape)
            for part in zip(*parts, strict=True)
        )
        logits = [ImageLogits(own, decode.upsample, windows) for own in coarse]
        return logits, exits, entropies, kept

    def postprocess_result(
        self,
        seg_logits: Tensor | Sequence[ImageLogits],
        data_samples: list[SegDataSample] | None = None,
    ) -> list[SegDataSample]:
        """Add label maps at the original size to data samples, from logits (B, K, H, W).

        Logits at that size are added unless ``test_cfg`` has ``seg_logits=False``. Unlike in
        mmseg, nothing is copied where the size does not change.
        """
        if data_samples is None:
            data_samples = [
                SegDataSample(metainfo=dict(ori_shape=tuple(logits.shape[-2:])))
                for logits in seg_logits
            ]
        for logits, sample in zip(seg_logits, data_samples, strict=True):
            threshold = self.decode_head.threshold
            if self.test_cfg.get("seg_logits", True):
                logits = to_original_size(logits[:], sample.metainfo, self.align_corners)
                scores = logits.sigmoid() if len(logits) == 1 else logits
                sample.set_data(dict(seg_logits=PixelData(data=scores)))
                labels = class_map(logits, threshold=threshold)
            else:
                labels = label_map(logits, sample.metainfo, threshold, self.align_corners)
            sample.set_data(dict(pred_sem_seg=PixelData(data=labels)))
        return data_samples

    def windows(self, inputs: Tensor) -> Windows:
        """Windows of images (B, 3, H, W); a single one in ``whole`` mode."""
        cfg = self.test_cfg if self._slides else {}
        return Windows(inputs.shape[-2:], cfg.get("crop_size"), cfg.get("stride"))

    def stage_gmacs(self, windows: Windows) -> Tensor:
        """Cost of a window, see :func:`tvit_seg.cost.stage_gmacs`."""
        return stage_gmacs(self, windows.shape)

    def inference(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Pixel logits (B, K, H, W) of images (B, 3, H, W)."""
        logits = self._segment(inputs, self.windows(inputs))[0]
        return torch.stack([x[:] for x in logits]) if len(logits) > 1 else logits[0][:][None]

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Pixel logits (B, K, H, W) of images (B, 3, H, W), without sliding windows."""
        return self.think(inputs).seg_logits  # type: ignore[return-value]  # decoded by now

    def extract_feat(self, inputs: Tensor) -> Features:
        """Feature maps of each image's exit stage."""
        thought = self.backbone.think(inputs, decode=self.decoder(inputs))
        return self._neck(thought.features)

    @property
    def _slides(self) -> bool:
        return self.test_cfg.get("mode", "whole") == "slide"

    def _neck(self, features: Features) -> Features:
        return self.neck(features) if self.with_neck else features

    def _check_resolution(self, gate: Gate) -> None:
        """Check that the decode head has logits at the resolution that a gate reads."""
        fits = gate.resolution == "input" or has_two_steps(self.decode_head)
        allowed = (
            f"'input' for {type(self.decode_head).__name__}, which upsamples in a way of its own"
        )
        check(fits, f"{type(gate).__name__} resolution", gate.resolution, allowed)

    def _check_image_head(self) -> None:
        """Check that the image-level loss trains the prediction that the gate reads."""
        given = self.backbone.num_classes
        allowed = f"{self.num_classes}, as in the decode head, for an image_loss"
        check(given == self.num_classes, "backbone num_classes", given, allowed)
        gate, loss = self.backbone.gate.measure, self.image_loss
        if isinstance(gate, EntropyGate):
            fits = gate.use_sigmoid == loss.use_sigmoid
            allowed = f"{loss.use_sigmoid} for image_loss target={loss.target!r}"
            check(fits, "EntropyGate use_sigmoid", gate.use_sigmoid, allowed)


def _scale_losses(losses: dict, weight: float) -> dict:
    """Multiply losses by a weight; leave other entries, such as accuracies."""

    def scale(value: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        return [v * weight for v in value] if isinstance(value, list) else value * weight

    return {name: scale(value) if "loss" in name else value for name, value in losses.items()}
