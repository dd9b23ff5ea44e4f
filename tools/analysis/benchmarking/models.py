"""The models that a benchmark compares, prepared alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps

import timm
import torch
from mmengine import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.models.backbones import VisionTransformer
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from tvit_seg.models.backbones import ThinkingSwin, ThinkingViT
from tvit_seg.models.compile import compile_blocks
from tvit_seg.models.gates import Gate
from tvit_seg.models.segmentors import ThinkingEncoderDecoder

HEADS = (3, 6)
TIMM_MODELS = ("deit_tiny_patch16_224", "deit_small_patch16_224")  # as wide as each stage


@dataclass(frozen=True)
class Setting:
    """Settings that all contestants share.

    Attributes:
        device: Where to run.
        dtype: Of weights and images.
        compile: Whether the blocks of every model are compiled.
        layers: Blocks of every ViT; of a Swin 3 / 2 as many at the third level.
        size: Side of the images in pixels in place of each row's own.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    compile: bool = False
    layers: int = 12
    size: int | None = None

    def prepare(self, model: nn.Module) -> nn.Module:
        """A model ready for inference under this setting."""
        model.eval()  # mmseg's returns nothing
        model.to(self.device, self.dtype)
        if self.compile:
            compile_blocks(model)
        return model

    def images(
        self, batch: int, height: int, width: int | None = None, channels: int = 3
    ) -> Tensor:
        """(batch, channels, height, width) noise."""
        images = torch.randn(batch, channels, height, width or height)
        return images.to(self.device, self.dtype)

    def thinking_vit(self, size: int, num_classes: int = 0, **options) -> ThinkingViT:
        """Our 3H-6H backbone."""
        return self.prepare(self.trainable_vit(size, num_classes, **options))

    def trainable_vit(self, size: int, num_classes: int, **options) -> ThinkingViT:
        """The same, not yet ready for inference."""
        shape = dict(img_size=size, num_layers=self.layers, thinking_stages=HEADS)
        return ThinkingViT(**shape, num_classes=num_classes, **options)

    def timm_vit(self, stage: int, size: int) -> nn.Module:
        """Timm's model as wide as a stage."""
        return self.prepare(self.trainable_timm_vit(stage, size))

    def trainable_timm_vit(self, stage: int, size: int) -> nn.Module:
        """The same, not yet ready for inference."""
        return timm.create_model(TIMM_MODELS[stage], img_size=size, depth=self.layers)

    def thinking_swin(self, num_classes: int) -> ThinkingSwin:
        """Our Swin-S."""
        return self.prepare(ThinkingSwin(depths=self._swin_depths, num_classes=num_classes))

    def timm_swin(self, size: int) -> nn.Module:
        """timm's, as wide as the last stage."""
        name = "swin_small_patch4_window7_224"
        return self.prepare(timm.create_model(name, img_size=size, depths=self._swin_depths))

    @property
    def _swin_depths(self) -> tuple[int, ...]:
        return (2, 2, max(1, 3 * self.layers // 2), 2)  # 18 at the third level for 12 layers

    def mmseg_vit(self, size: int) -> nn.Module:
        """Mmseg's backbone as wide as the last stage."""
        return self.prepare(VisionTransformer(**self._mmseg_backbone(size, HEADS)))

    def segmenter(
        self,
        size: int,
        classes: int,
        heads: Sequence[int] = HEADS,
        nested_head: bool = False,
        **test_cfg,
    ) -> ThinkingEncoderDecoder:
        """Our segmentor with a mask transformer, gated by the class token."""
        options = self.segmenter_options(size, classes, heads)
        options["nested_head"] = nested_head
        return self._segmentor("ThinkingEncoderDecoder", options, heads, classes, test_cfg)

    def segmenter_options(self, size: int, classes: int, heads: Sequence[int] = HEADS) -> dict:
        """Options of our segmentor other than its head."""
        backbone = dict(
            type="ThinkingViT",
            img_size=size,
            num_layers=self.layers,
            thinking_stages=heads,
            num_classes=classes,
            gate=dict(type="EntropyGate", threshold=0.0),
        )
        return dict(backbone=backbone)

    def upernet(self, classes: int) -> ThinkingEncoderDecoder:
        """Our Swin-S with a nested UPerNet."""
        backbone = dict(
            type="ThinkingSwin",
            depths=self._swin_depths,
            num_classes=classes,
            gate=dict(type="EntropyGate", threshold=0.0),
        )
        decode_head = dict(
            type="UPerHead",
            in_channels=[96, 192, 384, 768],
            in_index=[0, 1, 2, 3],
            channels=512,
            num_classes=classes,
            norm_cfg=dict(type="GN", num_groups=32),
            loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
        )
        init_default_scope("mmseg")
        parts = dict(backbone=backbone, decode_head=decode_head, nested_head=True)
        config = dict(type="ThinkingEncoderDecoder", test_cfg=dict(seg_logits=False), **parts)
        return self.prepare(MODELS.build(config))

    def mmseg_segmenter(
        self, size: int, classes: int, heads: Sequence[int] = HEADS, **test_cfg
    ) -> nn.Module:
        """Mmseg's Segmenter as wide as the last stage."""
        options = self.mmseg_options(size, heads)
        return self._segmentor("EncoderDecoder", options, heads, classes, test_cfg)

    def mmseg_options(self, size: int, heads: Sequence[int] = HEADS) -> dict:
        """Options of mmseg's segmentor other than its head."""
        return dict(backbone=dict(type="VisionTransformer", **self._mmseg_backbone(size, heads)))

    def _segmentor(
        self, kind: str, options: dict, heads: Sequence[int], classes: int, test_cfg: dict
    ) -> nn.Module:
        init_default_scope("mmseg")
        return self.prepare(MODELS.build(segmentor_config(kind, options, heads, classes, test_cfg)))

    def _mmseg_backbone(self, size: int, heads: Sequence[int]) -> dict:
        return dict(
            img_size=(size, size),
            embed_dims=64 * heads[-1],
            num_layers=self.layers,
            num_heads=heads[-1],
            patch_bias=True,
            final_norm=True,
        )


def segmentor_config(
    kind: str, options: dict, heads: Sequence[int], classes: int, test_cfg: dict
) -> dict:
    """Config of a segmentor with a mask transformer."""
    return dict(
        type=kind,
        **options,
        decode_head=mask_head(64 * heads[-1], classes),
        test_cfg=ConfigDict(test_cfg or dict(mode="whole")),
    )


def label_images(model: nn.Module, images: Tensor, gate: Gate | None = None) -> list[SegDataSample]:
    """Predict label maps at the size of the images, with our own models through a given gate."""
    if gate is not None:
        model.backbone.set_gate(gate, has_decode_head=True)
    meta = dict.fromkeys(("ori_shape", "img_shape", "pad_shape"), tuple(images.shape[-2:]))
    return model.predict(images, [SegDataSample(metainfo=meta) for _ in images])


def mask_head(width: int, classes: int) -> dict:
    """Segmenter's mask transformer of two layers."""
    return dict(
        type="SegmenterMaskTransformerHead",
        in_channels=width,
        channels=width,
        embed_dims=width,
        num_layers=2,
        num_heads=width // 64,
        num_classes=classes,
        dropout_ratio=0.0,
        loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
    )


def inference(run: Callable[[], object]) -> Callable[[], object]:
    """The same without gradients."""

    @wraps(run)
    def quietly() -> object:
        with torch.inference_mode():
            return run()

    return quietly
