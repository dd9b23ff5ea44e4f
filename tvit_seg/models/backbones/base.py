"""What every thinking backbone shares: stages, gate, the two ways to run, loading weights."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from mmengine.model import BaseModule
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...thinking import Decode, Features, StageOutput, Thought, think
from ...weights.load import load_pretrained
from ..gates import DrawnGate, Gate, build_gate


class ThinkingBackbone(BaseModule):
    """A backbone of nested thinking stages. Subclasses embed images and run one stage.

    Args:
        num_stages: Number of thinking stages.
        num_classes: Classes of the image-level head; 0 for none.
        gate: Says which images stop; a config, a gate, or None to think to the end always.
        loss_weights: Weight of each stage in the joint loss, >= 0; None for equal weights with sum
            1. As a drop-in in a segmentor that knows nothing of stages, the backbone draws each
            training image's exit stage with these as probabilities: an unbiased estimate of the
            joint loss.
        init_cfg: As in mmengine; ``dict(type='Pretrained', checkpoint=path)`` reads DeiT, timm,
            mmseg and the authors' weights; ``prefix`` takes those below a name, ``ema=True`` the
            averaged ones and ``ema=False`` the raw ones of a file with both.
    """

    with_cp = False
    """Whether blocks are checkpointed, which trades time for memory in training."""

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
        self.num_classes = check_num_classes(num_classes)
        self.pruning: nn.Module | None = None
        self.loss_weights = check_loss_weights(loss_weights, num_stages)
        self.set_gate(gate)

    def set_gate(self, gate: Gate | dict | None, has_decode_head: bool = False) -> None:
        """Replaces the gate.

        Args:
            gate: A gate, its config, or None to think to the end always.
            has_decode_head: Whether the caller decodes pixels for gates that look at them.

        Raises:
            ValueError: If the gate does not fit this backbone.
        """
        gate = build_gate(gate)
        if gate.needs_decode_head and not has_decode_head:
            raise ValueError(
                f"{type(gate).__name__} reads decoded pixels and needs a decode head: use it in a "
                "ThinkingEncoderDecoder, or gate on the image-level prediction with EntropyGate"
            )
        gate.check(self)
        self.gate = gate

    @abstractmethod
    def embed(self, images: Tensor, stage: int, embedding: Tensor | None = None) -> Tensor:
        """Embedding at the width of a stage. What an earlier stage has computed of it is reused.

        Args:
            images: (n, 3, H, W), any size.
            stage: Index of the stage, from 0.
            embedding: These images' embedding at the width of the previous stage; None at the
                first.

        Returns:
            The embedding, images along dimension 0.
        """

    @abstractmethod
    def run_stage(
        self, stage: int, embedding: Tensor, tokens: Tensor | None, size: Sequence[int]
    ) -> StageOutput:
        """Runs one thinking stage.

        Args:
            stage: Index of the stage, from 0.
            embedding: (n, ...) from :meth:`embed`, at the width of the stage.
            tokens: Output tokens of the previous stage for these images; None at the first.
            size: (H, W) of the images in pixels.

        Returns:
            What the stage says about the n images.
        """

    @abstractmethod
    def padded_size(self, size: Sequence[int]) -> list[int]:
        """Size in pixels that images of (H, W) pixels are padded to, on the right and bottom."""

    def size_divisor(self) -> int:
        """Of what image sizes are multiples in an exported graph that takes any such size.

        Raises:
            ValueError: If a graph can be for a single size only; the message says why.
        """
        raise ValueError(
            f"{type(self).__name__} treats each image size its own way, and a graph holds one way"
        )

    @property
    @abstractmethod
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each map that heads get."""

    @abstractmethod
    def pool(self, tokens: Tensor) -> Tensor:
        """What stands for the image, the head's input.

        Args:
            tokens: (n, ..., d) after the final norm.

        Returns:
            (n, d).
        """

    def classify(self, tokens: Tensor) -> Tensor | None:
        """Image-level prediction (n, K) of tokens (n, ..., d), or None without a head."""
        return None if self.head is None else self.head(self.pool(tokens), self.num_classes)

    @abstractmethod
    def group_matcher(self, coarse: bool = False) -> dict:
        """Which parameters belong to which layer, for layer decay, in timm's notation.

        Args:
            coarse: Whether the blocks of a pyramid's level form one layer.
        """

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with several dimensions that do not decay, as in timm."""
        spared = ("cls_token", "pos_embed", "relative_position_bias_table")
        return {name for name, _ in self.named_parameters() if name.endswith(spared)}

    def think(
        self, images: Tensor, gate: Gate | None = None, decode: Decode | None = None
    ) -> Thought:
        """Runs stages until the gate has stopped every image; see :func:`tvit_seg.thinking.think`.

        Args:
            images: (B, 3, H, W).
            gate: In place of the backbone's own.
            decode: Decode head for gates that look at pixels.
        """
        return think(self, images, self.gate if gate is None else gate, decode)

    def forward_stages(
        self, images: Tensor, supervised: Sequence[bool] | None = None
    ) -> list[StageOutput]:
        """Runs every stage on every image, as training does.

        Args:
            images: (B, 3, H, W).
            supervised: For each stage whether it gets gradients; None for all. The others run all
                the same, since their tokens are recycled.

        Returns:
            One output for each stage.
        """
        return list(self.iter_stages(images, supervised))

    def iter_stages(
        self, images: Tensor, supervised: Sequence[bool] | None = None
    ) -> Iterator[StageOutput]:
        """Like :meth:`forward_stages`, but a stage runs when its output is asked for."""
        embedding = tokens = None
        for stage in range(self.num_stages):
            embedding = self.embed(images, stage, embedding)
            learns = torch.is_grad_enabled() and (supervised is None or supervised[stage])
            with torch.set_grad_enabled(learns):
                output = self.run_stage(stage, embedding, tokens, images.shape[-2:])
            tokens = output.tokens
            yield output

    def think_or_draw(self, images: Tensor) -> Thought:
        """Thinks with the backbone's gate; in training with drawn exit stages.

        These are drawn with the loss weights, so that a model which knows nothing of stages
        supervises all of them, see :class:`~tvit_seg.models.gates.DrawnGate`.

        Args:
            images: (B, 3, H, W).
        """
        return self.think(images, DrawnGate(self.loss_weights) if self.training else None)

    def forward(self, images: Tensor) -> Features:
        """Feature maps for any decode head, each image's from the stage where it stopped.

        In training exit stages are drawn, see :meth:`think_or_draw`.

        Args:
            images: (B, 3, H, W).

        Returns:
            Maps (B, C, H', W'), C constant; see :data:`tvit_seg.thinking.Features`.
        """
        return self.think_or_draw(images).features

    def init_weights(self) -> None:
        """Applies ``init_cfg``; pretrained weights are converted to our names and shapes."""
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
        """What the cost of a stage depends on besides the image size."""
        return type(self.gate.measure), self.pruning and self.pruning.keep_ratio

    def keep_mask_shape(self, size: Sequence[int]) -> tuple[int, int, int] | None:
        """Shape (L, h, w) of what is told of an image's tokens; None if none is pruned.

        Args:
            size: (H, W) in pixels.

        Raises:
            ValueError: If an image of this size is too small for the backbone's pruning.
        """
        return None

    def _run(self, block: nn.Module, *inputs: Tensor | None) -> Tensor:
        """Runs a block, checkpointed if wanted."""
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def _reset_linear(self) -> None:
        """DeiT's and Swin's initialisation of linear layers."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def check_num_classes(num_classes: int) -> int:
    """Returns the number of classes of an image-level head, or raises ValueError if it is none."""
    if not isinstance(num_classes, int) or num_classes < 0:
        raise ValueError(f"num_classes={num_classes!r} must be an integer >= 0")
    return num_classes


def check_loss_weights(weights: Sequence[float] | None, num_stages: int) -> list[float]:
    """Returns one loss weight for each stage, equal ones with sum 1 by default.

    Raises:
        ValueError: If there are too few or too many, one is negative, or all are 0.
    """
    if weights is None:
        return [1 / num_stages] * num_stages
    if not isinstance(weights, Sequence) or isinstance(weights, str):
        raise ValueError(f"loss_weights={weights!r} must be a list, one weight for each stage")
    if len(weights) != num_stages:
        raise ValueError(
            f"loss_weights={list(weights)} has {len(weights)} entries, one for each of the "
            f"{num_stages} thinking stages is needed"
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise ValueError(f"loss_weights={list(weights)} must be finite, >= 0 and not all 0")
    return [float(weight) for weight in weights]
