"""Segmentor that trains all thinking stages jointly and lets a gate choose at inference."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine import ConfigDict
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor

from ..backbones import ThinkingBackbone
from ..backbones.base import check_loss_weights
from ..cost import stage_macs
from ..gates import EntropyGate, Gate
from ..registry import register
from ..thinking import Thought
from .image_loss import ImageLoss
from .windows import check_slide, window_boxes


@register("MODELS")
class ThinkingEncoderDecoder(EncoderDecoder):
    """mmseg's ``EncoderDecoder`` for backbones that think.

    Training runs every stage and adds up their weighted losses; each is logged under its stage.
    At inference the backbone's gate decides for each image (each window in ``slide`` mode), and the
    result's data sample carries ``exit_stage``, ``gate_entropy``, ``windows`` and ``gmacs``.

    Args:
        backbone: Config of a thinking backbone, with its gate.
        decode_head: Config of any mmseg decode head; it sees the full width always.
        neck: As in mmseg.
        auxiliary_head: As in mmseg; one or several, at every stage.
        loss_weights: Weight of each stage's losses; None for the backbone's own.
        image_loss: Options of :class:`ImageLoss`, which trains the class token; None leaves the
            image-level head as it was loaded.
        train_cfg: As in mmseg.
        test_cfg: As in mmseg, plus ``window_batch_size``: how many sliding windows run at once.
        data_preprocessor: As in mmseg.
        pretrained: As in mmseg.
        init_cfg: As in mmseg.

    Raises:
        TypeError: If the backbone does not think.
        ValueError: If gate, loss weights, classes and windows do not fit together.
    """

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        neck: dict | None = None,
        auxiliary_head: dict | list | None = None,
        loss_weights: Sequence[float] | None = None,
        image_loss: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ):
        backbone = ConfigDict(backbone)
        gate = backbone.pop("gate", None)  # set below, where decoded pixels are at hand
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
        if not isinstance(self.backbone, ThinkingBackbone):
            raise TypeError(
                f"backbone {type(self.backbone).__name__} does not think; "
                "ThinkingEncoderDecoder takes ThinkingViT"
            )
        self.backbone.set_gate(gate, has_decode_head=True)
        if loss_weights is not None:
            self.backbone.loss_weights = check_loss_weights(loss_weights, self.num_stages)
        self.image_loss = None if image_loss is None else ImageLoss(**image_loss)
        self._check_image_head()
        mode = self.test_cfg.get("mode", "whole")
        if mode not in ("whole", "slide"):
            raise ValueError(f"test_cfg mode={mode!r} must be 'whole' or 'slide'")
        if mode == "slide":
            check_slide(
                self.test_cfg.get("crop_size"), self.test_cfg.get("stride"), self.window_batch_size
            )
        self._gmacs: dict[tuple, Tensor] = {}

    @property
    def num_stages(self) -> int:
        """Number of thinking stages."""
        return self.backbone.num_stages

    @property
    def window_batch_size(self) -> int:
        """How many sliding windows run at once."""
        return self.test_cfg.get("window_batch_size", 8)

    # ---------------------------------------------------------------- training

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Weighted losses of every stage, named ``stage{i}.decode.*``, ``.aux.*``, ``.image.*``.

        Args:
            inputs: (B, 3, H, W).
            data_samples: With ``gt_sem_seg``.
        """
        inputs, data_samples = self._pad(inputs, data_samples)
        losses = {}
        for output in self.backbone.forward_stages(inputs):
            features = self._neck(output.features)
            found = self._decode_head_forward_train(features, data_samples)
            if self.with_auxiliary_head:
                found.update(self._auxiliary_head_forward_train(features, data_samples))
            if self.image_loss is not None:
                labels = torch.cat([sample.gt_sem_seg.data for sample in data_samples])
                found["image.loss"] = self.image_loss(output.logits, labels)
            weighted = _scale_losses(found, self.backbone.loss_weights[output.stage])
            losses.update(add_prefix(weighted, f"stage{output.stage}"))
        return losses

    def _pad(
        self, inputs: Tensor, data_samples: list[SegDataSample]
    ) -> tuple[Tensor, list[SegDataSample]]:
        """Images with zeros and labels with ignored pixels, where patches reach over the border."""
        height, width = inputs.shape[-2:]
        bottom, right = (p - s for p, s in zip(self._padded(inputs), (height, width), strict=True))
        if not bottom and not right:
            return inputs, data_samples
        margin = (0, right, 0, bottom)
        ignore = self.decode_head.ignore_index
        padded = []
        for sample in data_samples:
            labels = F.pad(sample.gt_sem_seg.data, margin, value=ignore)
            padded.append(
                SegDataSample(metainfo=sample.metainfo, gt_sem_seg=PixelData(data=labels))
            )
        return F.pad(inputs, margin), padded

    def _padded(self, inputs: Tensor) -> list[int]:
        return self.backbone.padded_size(inputs.shape[-2:])

    # --------------------------------------------------------------- inference

    def think(self, images: Tensor, gate: Gate | None = None) -> Thought:
        """Runs stages until the gate has stopped every image, and decodes what is not yet decoded.

        Args:
            images: (B, 3, H, W).
            gate: In place of the backbone's own.

        Returns:
            The thought; its ``seg_logits`` are (B, K, H, W).
        """
        padded = self._padded(images)

        def decode(features: tuple[Tensor, ...]) -> Tensor:
            # a torch.Size tells mmseg's heads to upsample to just this size
            metas = [dict(img_shape=torch.Size(padded), pad_shape=torch.Size(padded))]
            metas = metas * len(features[0])
            return self.decode_head.predict(self._neck(features), metas, self.test_cfg)

        thought = self.backbone.think(images, gate, decode)
        if thought.seg_logits is None:
            thought.seg_logits = decode(thought.features)
        thought.seg_logits = thought.seg_logits[..., : images.shape[-2], : images.shape[-1]]
        return thought

    def predict(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Segments images.

        Args:
            inputs: (B, 3, H, W).
            data_samples: Their metainfo; the results are added to them. None makes new ones.

        Returns:
            Data samples with ``pred_sem_seg`` and ``seg_logits`` as in mmseg, and, with W windows
            (1 in ``whole`` mode): ``exit_stage`` (W,), a scalar tensor in ``whole`` mode;
            ``gate_entropy`` (W, number of stages) in nats, NaN where not run, (number of stages,)
            in ``whole`` mode; ``windows`` (W, 4) top, left, bottom, right as shares of the image;
            ``gmacs``, the multiply-accumulates spent on the image in 10^9.
        """
        seg_logits, thought, boxes = self._infer(inputs)
        results = self.postprocess_result(seg_logits, data_samples)
        slide = self.test_cfg.get("mode", "whole") == "slide"
        scale = torch.tensor(inputs.shape[-2:] * 2)
        count = len(boxes)
        costs = self._stage_gmacs(boxes[0])[thought.exit_stage.cpu()]
        for i, sample in enumerate(results):
            mine = slice(i * count, (i + 1) * count) if slide else i
            sample.set_field(thought.exit_stage[mine].cpu(), "exit_stage")
            sample.set_field(thought.entropy[mine].cpu(), "gate_entropy")
            sample.set_field(boxes / scale, "windows")
            sample.set_field(float(costs[mine].sum()), "gmacs")
        return results

    def inference(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Pixel logits (B, K, H, W) of images (B, 3, H, W)."""
        return self._infer(inputs)[0]

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Pixel logits (B, K, H, W) of images (B, 3, H, W), without sliding windows."""
        return self.think(inputs).seg_logits

    def _infer(self, inputs: Tensor) -> tuple[Tensor, Thought, Tensor]:
        """Logits (B, K, H, W), the thought about each image's windows, and those windows (W, 4)."""
        size = inputs.shape[-2:]
        if self.test_cfg.get("mode", "whole") == "whole":
            thought = self.think(inputs)
            return thought.seg_logits, thought, torch.tensor([[0, 0, *size]])
        boxes = window_boxes(size, self.test_cfg.crop_size, self.test_cfg.stride)
        areas = [(..., slice(y1, y2), slice(x1, x2)) for y1, x1, y2, x2 in boxes]
        jobs = [(i, area) for i in range(len(inputs)) for area in areas]
        logits = inputs.new_zeros(len(inputs), self.out_channels, *size)
        count = inputs.new_zeros(size)
        for area in areas:
            count[area] += 1
        thoughts = []
        for start in range(0, len(jobs), self.window_batch_size):
            chunk = jobs[start : start + self.window_batch_size]
            thought = self.think(torch.stack([inputs[i][area] for i, area in chunk]))
            for (i, area), window in zip(chunk, thought.seg_logits, strict=True):
                logits[i][area] += window
            thoughts.append((thought.exit_stage, thought.entropy))
        exits, entropies = (torch.cat(parts) for parts in zip(*thoughts, strict=True))
        about = Thought(features=(), exit_stage=exits, entropy=entropies, logits=None)
        return logits.div_(count), about, boxes

    def _stage_gmacs(self, box: Tensor) -> Tensor:
        """(number of stages,) cumulative GMACs for a window, counted once for each size."""
        size = tuple(self.backbone.padded_size((int(box[2] - box[0]), int(box[3] - box[1]))))
        key = (size, self.backbone.gate.needs_decode_head)
        if key not in self._gmacs:
            self._gmacs[key] = torch.tensor(stage_macs(self, size), dtype=torch.double) / 1e9
        return self._gmacs[key]

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stage where each image stopped."""
        return self._neck(self.backbone.think(inputs).features)

    def _neck(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self.neck(features) if self.with_neck else features

    def _check_image_head(self) -> None:
        """The class token must be trained for what the gate reads from it."""
        if self.image_loss is None:
            return
        if self.backbone.num_classes != self.num_classes:
            raise ValueError(
                f"image_loss needs an image-level head over the {self.num_classes} classes of the "
                f"decode head, but the backbone has num_classes={self.backbone.num_classes}"
            )
        gate = self.backbone.gate
        if isinstance(gate, EntropyGate) and gate.use_sigmoid != self.image_loss.use_sigmoid:
            raise ValueError(
                f"image_loss target={self.image_loss.target!r} trains a prediction that needs "
                f"use_sigmoid={self.image_loss.use_sigmoid} in the EntropyGate"
            )


def _scale_losses(losses: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
    """Losses times a weight; other entries, such as accuracies, as they are."""
    return {name: value * weight if "loss" in name else value for name, value in losses.items()}
