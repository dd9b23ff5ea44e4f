"""Base of thinking backbones: stages, gate, inference and training, loading weights."""

import logging
import weakref
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import ExportError
from ...hub import HubMixin
from ...thinking import RUNS, Decode, Features, Run, StageOutput, Thought, hand_on, think
from ...utils.checks import check, check_integer
from ...weights.architecture import Stages, read_architecture
from ...weights.convert import convert_state_dict
from ...weights.io import read_checkpoint
from ...weights.load import load_pretrained, load_weights
from ..gates import Gate, SampledGate, build_gate
from ..pruning import Pruning
from .arguments import check_loss_weights
from .stage_view import StageView


class ThinkingBackbone(BaseModule, HubMixin):
    """Backbone of nested thinking stages. Subclasses embed images and run one stage.

    Args:
        num_stages: Number of thinking stages.
        num_classes: Classes of the image-level head; 0 for none.
        gate: Gate or its config; None always thinks to the end.
        loss_weights: Weight of each stage in the joint loss, >= 0; None for equal weights with sum
            1. As a drop-in in a segmentor that is unaware of stages, the backbone samples each
            training image's exit stage with these as probabilities: an unbiased estimate of the
            joint loss.
        init_cfg: As in mmengine; ``dict(type='Pretrained', checkpoint=path)`` reads DeiT, timm,
            mmseg and the authors' weights; ``prefix`` selects those under a name, ``ema=True`` the
            averaged ones and ``ema=False`` the raw ones of a file with both.
    """

    init_cfg: dict | list | None
    with_cp = False
    """Checkpoints blocks, which trades time for memory in training."""

    def __init__(
        self,
        num_stages: int,
        num_classes: int = 0,
        gate: Gate | dict | None = None,
        loss_weights: Sequence[float] | None = None,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg)
        self.num_stages = num_stages
        self.num_classes = check_integer("num_classes", num_classes, minimum=0)
        self.pruning: Pruning | None = None
        self.loss_weights = check_loss_weights(loss_weights, num_stages)
        self.set_gate(gate)

    def set_gate(self, gate: Gate | dict | None, has_decode_head: bool = False) -> None:
        """Replace the gate.

        Args:
            gate: Gate or its config; None always thinks to the end.
            has_decode_head: Allows gates that read decoded pixels.

        Raises:
            ConfigError: If the gate does not fit this backbone.
        """
        if gate is None or gate is not self._modules.get("gate"):
            self._lacks_gate = gate is None and self.num_stages > 1
        gate = build_gate(gate)
        fits = has_decode_head or not gate.needs_decode_head
        allowed = "one that needs no decode head; a ThinkingEncoderDecoder takes others"
        check(fits, "gate", type(gate).__name__, allowed)
        gate.check(self)
        self.gate = gate

    def set_pruning(self, pruning: Mapping | None, has_decode_head: bool = False) -> None:
        """Replace the token pruning.

        Args:
            pruning: Its config; None for none.
            has_decode_head: Allows prunings that read decoded pixels.

        Raises:
            ConfigError: If the pruning does not fit this backbone.
        """
        kind = type(self).__name__
        check(pruning is None, "pruning", pruning, f"None for {kind}, which prunes no tokens")

    @classmethod
    def from_weights(
        cls,
        path: str,
        thinking_stages: Stages | None = None,
        head_dim: int | None = None,
        prefix: str | None = None,
        ema: bool | None = None,
        **options: Any,
    ) -> "ThinkingBackbone":
        """Build the backbone that a file of weights is of, and load it.

        Args:
            path: As :func:`~tvit_seg.weights.load.load_pretrained`, also ``prefix`` and ``ema``.
            thinking_stages: Heads of each stage; None for those of a file with recycling, else one
                stage of full width.
            head_dim: Channels of a ViT's attention head; None for the recorded width, else 64.
            prefix: Selects entries, and is removed from their names.
            ema: Selects averaged or raw weights.
            **options: Further arguments of the backbone, in place of those that names and shapes
                tell, see :func:`~tvit_seg.weights.architecture.read_architecture`. With ``arch``
                the file is not asked.

        Raises:
            CheckpointError: The file cannot be read, or describes no such backbone.
            ConfigError: It is of another kind of backbone.
        """
        checkpoint = read_checkpoint(path)
        if "arch" not in options:
            weights = convert_state_dict(checkpoint, prefix=prefix, ema=ema)
            slicing = options.get("slicing")
            found = read_architecture(weights, head_dim, thinking_stages, slicing)
            kind = found.pop("type")
            check(kind == cls.__name__, "kind of weights", kind, cls.__name__)
            options = found | options
        elif thinking_stages is not None:
            options["thinking_stages"] = thinking_stages
        backbone = cls(**options)
        load_weights(backbone, checkpoint, path, prefix, ema)
        return backbone

    @abstractmethod
    def embed(self, images: Tensor, stage: int, embedding: Tensor | None = None) -> Tensor:
        """Embed images at the width of a stage.

        Args:
            images: (n, 3, H, W), any size.
            stage: Index of the stage, from 0.
            embedding: (n, ...) of these images at the width of the previous stage, reused; None at
                the first.

        Returns:
            (n, ...).
        """

    @abstractmethod
    def run_stage(
        self,
        stage: int,
        embedding: Tensor,
        previous: StageOutput | None,
        size: Sequence[int],
    ) -> StageOutput:
        """Run one thinking stage.

        Args:
            stage: Index of the stage, from 0.
            embedding: (n, ...) from :meth:`embed`, at the width of the stage.
            previous: Output of the previous stage for these images; None at the first.
            size: (H, W) of the images in pixels.
        """

    @abstractmethod
    def padded_size(self, size: Sequence[int]) -> list[int]:
        """Size in pixels that images of (H, W) pixels are padded to, on the right and bottom."""

    def size_divisor(self) -> int:
        """Divisor of the image sizes that an exported graph of any size takes.

        Raises:
            ExportError: If a graph supports a single size only; the message gives the reason.
        """
        raise ExportError(
            f"{type(self).__name__} computes differently for each image size, a graph for one only"
        )

    @property
    @abstractmethod
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each map."""

    @property
    @abstractmethod
    def stage_channels(self) -> tuple[tuple[int, ...], ...]:
        """For each stage the channels of each map that are not padding."""

    @abstractmethod
    def pool(self, tokens: Tensor) -> Tensor:
        """Input (n, d) of the image-level head, of tokens (n, ..., d) after the final norm."""

    def classify(self, tokens: Tensor) -> Tensor | None:
        """Image-level prediction (n, K) of tokens (n, ..., d), or None without a head."""
        return None if self.head is None else self.head(self.pool(tokens), self.num_classes)

    @abstractmethod
    def group_matcher(self, coarse: bool = False) -> dict:
        """Layers of parameters for layer decay, in timm's notation.

        Args:
            coarse: Joins the blocks of a pyramid's level into one layer.
        """

    def no_weight_decay(self) -> set[str]:
        """Names of multi-dimensional parameters without weight decay, as in timm."""
        suffixes = ("cls_token", "reg_token", "pos_embed", "relative_position_bias_table")
        return {name for name, _ in self.named_parameters() if name.endswith(suffixes)}

    def think(
        self, images: Tensor, gate: Gate | None = None, decode: Decode | None = None
    ) -> Thought:
        """Run stages until every image has exited; see :func:`tvit_seg.thinking.think`.

        Args:
            images: (B, 3, H, W).
            gate: In place of the backbone's own.
            decode: Decode head for gates that read pixels.
        """
        if gate is None and self._lacks_gate and not self.training and not _is_traced():
            self._lacks_gate = False  # said once
            what = f"{type(self).__name__} has no gate: every image runs all its stages"
            hint = "set gate=dict(type='EntropyGate', threshold=...) in the backbone's config"
            print_log(f"{what}; {hint}", "current", logging.WARNING)
        return think(self, images, self.gate if gate is None else gate, decode)

    def forward_stages(
        self,
        images: Tensor,
        supervised: Sequence[bool] | None = None,
        decode: Decode | None = None,
    ) -> list[StageOutput]:
        """Run every stage on every image, as training does.

        Args:
            images: (B, 3, H, W).
            supervised: Stages that get gradients, one bool each; None for all. The others still
                run, since their tokens are recycled.
            decode: Decode head for prunings that read pixels.

        Returns:
            One output for each stage.
        """
        return list(self.iter_stages(images, supervised, decode))

    def iter_stages(
        self,
        images: Tensor,
        supervised: Sequence[bool] | None = None,
        decode: Decode | None = None,
    ) -> Iterator[StageOutput]:
        """Iterate over :meth:`forward_stages`; each stage runs when its output is needed."""
        embedding = previous = None
        for stage in range(self.num_stages):
            embedding = self.embed(images, stage, embedding)
            learns = torch.is_grad_enabled() and (supervised is None or supervised[stage])
            with torch.set_grad_enabled(learns):
                output = self.run_stage(stage, embedding, previous, images.shape[-2:])
            yield output
            previous = hand_on(self, output, decode)

    def as_stage(self, stage: int = -1, output: str = "features") -> StageView:
        """View one stage as a plain module, for tools that hook or count modules.

        Args:
            stage: Index of the stage; negative counts from the end.
            output: What the view returns: ``'features'``, ``'logits'`` or ``'tokens'``.
        """
        return StageView(self, stage, output)

    def think_or_sample(self, images: Tensor) -> Thought:
        """Think about images (B, 3, H, W) with the gate, in training with sampled exit stages.

        These are sampled with the loss weights, so that a model that is unaware of stages
        supervises all of them, see :class:`~tvit_seg.models.gates.SampledGate`.
        """
        return self.think(images, SampledGate(self.loss_weights) if self.training else None)

    def forward(self, images: Tensor) -> Features:
        """Feature maps for any decode head, each image's from its exit stage.

        In training exit stages are sampled, see :meth:`think_or_sample`.

        Args:
            images: (B, 3, H, W).

        Returns:
            Maps (B, C, H', W'), C constant; see :data:`tvit_seg.thinking.Features`.
        """
        thought = self.think_or_sample(images)
        if not self.training and not _is_traced():
            size = tuple(images.shape[-2:])
            RUNS.append(Run(weakref.ref(self), size, thought.exit_stage, thought.entropy.detach()))
        return thought.features

    def train(self, mode: bool = True) -> "ThinkingBackbone":
        """Set the mode, as a loop does before it evaluates; forget exits of earlier images."""
        RUNS.clear()
        return super().train(mode)

    def init_weights(self) -> None:
        """Apply ``init_cfg``; pretrained weights are converted to this model's names and shapes."""
        cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        pretrained = [cfg for cfg in cfgs if cfg and cfg.get("type") == "Pretrained"]
        others = [cfg for cfg in cfgs if cfg and cfg not in pretrained]
        if others:
            self.init_cfg = others
            super().init_weights()
        for cfg in pretrained:
            load_pretrained(self, cfg["checkpoint"], cfg.get("prefix"), cfg.get("ema"))
        self._is_init = True

    @property
    def cost_key(self) -> tuple:
        """Everything that the cost of a stage depends on besides the image size."""
        return type(self.gate.measure), self.pruning and self.pruning.keep_ratio

    def keep_mask_shape(self, size: Sequence[int]) -> tuple[int, int, int] | None:
        """Shape (L, h, w) of an image's keep masks, of (H, W) pixels; None without pruning.

        Raises:
            ConfigError: If an image of this size is too small for the backbone's pruning.
        """
        return None

    def _run(self, block: nn.Module, x: Tensor, **options: Any) -> Tensor:
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False, **options)
        return block(x, **options)

    def _reset_linear(self) -> None:
        """DeiT's and Swin's initialisation of linear layers."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _is_traced() -> bool:
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def check_thinks(backbone: nn.Module) -> None:
    """Raise ConfigError unless a backbone is a ``ThinkingBackbone``."""
    kind = type(backbone).__name__
    allowed = "a thinking one such as ThinkingViT or ThinkingSwin"
    check(isinstance(backbone, ThinkingBackbone), "backbone", kind, allowed)
