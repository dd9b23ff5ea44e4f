"""timm's interface of image classifiers, on top of a thinking backbone."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from timm.models._features import feature_take_indices
from timm.models.vision_transformer import global_pool_nlc
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError
from ...thinking import StageOutput
from ...utils.checks import check, check_choice, check_integer
from ...weights.convert import ConvertedStateDict
from ...weights.load import load_pretrained, load_weights
from ..backbones import ThinkingBackbone
from ..gates import EntropyGate, FixedGate, Gate
from ..layers import NestedLinear


class _TopEntropyGate(EntropyGate):
    """Count the ten most probable classes, or all where the backbone has no more."""

    def check(self, backbone: ThinkingBackbone) -> None:
        topk = 10 if backbone.num_classes > 10 else None
        EntropyGate(self.threshold, topk).check(backbone)
        self.topk = topk


class TimmInterface(ThinkingBackbone):
    """Mixin that gives a thinking backbone the interface of a timm classifier.

    In evaluation each image's prediction comes from its exit stage, in training from a stage
    sampled with the loss weights, see
    :meth:`~tvit_seg.models.backbones.ThinkingBackbone.think_or_sample`: any criterion that averages
    over images then estimates the joint loss of all stages without bias.

    Tokens of narrow stages are zero-padded, so that all images of a batch have ``num_features``
    channels; the linear head predicts the same. The ``features`` of stages and thoughts are tokens
    here, not maps: the blocks (levels) of ``out_indices``, then the final tokens.

    Args:
        num_classes: Classes of the head; 0 for none, then the model returns pooled features.
        in_chans: Channels of the image.
        global_pool: Pooling of the final tokens for the head, and with it an entropy gate; ``''``
            returns all tokens, and leaves the gate the backbone's own choice.
        drop_rate: Dropout rate before the head.
        proj_drop_rate: Dropout rate after embedding and projections.
        gate: Gate or its config; None always thinks to the end.
        threshold: In nats; short for an ``EntropyGate`` that counts the ten most probable classes,
            as the published thresholds do (all classes where there are no more). Also as text:
            timm's scripts cannot write ``inf`` as a number.
        joint: In training, returns the logits of all stages, a list of (B, K), which
            :class:`JointLoss` turns into the joint loss itself.
        **kwargs: Further arguments of the backbone; also timm's ``dynamic_img_size=True`` and
            ``dynamic_img_pad=True``, since images of any size are accepted. The losses of
            ``pruning`` are those of ``ThinkingClassifier``: pruned models can be evaluated here,
            not trained.
    """

    pools: tuple[str, ...]
    """Values of ``global_pool``, the backbone's own choice first."""

    num_prefix_tokens = 0
    """Number of tokens before those of patches."""

    norm_intermediates = False
    """Applies the final norm to intermediate features."""

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str | None = None,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        gate: Gate | dict | None = None,
        threshold: float | str | None = None,
        joint: bool = False,
        **kwargs,
    ):
        check(gate is None or threshold is None, "gate", gate, "None where a threshold is given")
        threshold = float(threshold) if isinstance(threshold, str) else threshold
        check_integer("in_chans", in_chans)
        for option in ("dynamic_img_size", "dynamic_img_pad"):
            check_choice(option, kwargs.pop(option, True), (True,))
        super().__init__(  # type: ignore[call-arg]  # of ThinkingViT or ThinkingSwin
            in_channels=in_chans, drop_rate=proj_drop_rate, num_classes=num_classes, **kwargs
        )
        self.out_indices: tuple[int, ...] = ()
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = self.norm.weight.shape[0]
        self.global_pool = self._check_pool(self.pools[0] if global_pool is None else global_pool)
        self.head_drop = nn.Dropout(drop_rate)
        self.joint = joint
        self.set_gate(gate if threshold is None else _TopEntropyGate(threshold))

    # ------------------------------------------------------------- classifying

    def pool(self, tokens: Tensor) -> Tensor:
        return self._pool(tokens, self.global_pool or self.pools[0])

    def run_stage(self, *args) -> StageOutput:
        """Run one thinking stage; features are tokens, the final ones last."""
        output = super().run_stage(*args)  # type: ignore[safe-super]  # of the next class
        return replace(output, features=(*output.features, self._pad(output.tokens)))

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of each image's exit stage; in training of a sampled stage, or of all.

        Args:
            images: (B, C, H, W), any size.

        Returns:
            (B, K), or (B, D) without classes; with ``joint`` in training one for each stage.
        """
        if self.joint and self.training:
            return [self.forward_head(out.features[-1]) for out in self.iter_stages(images)]
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Final tokens of each image's exit stage, (B, ..., D)."""
        return self.think_or_sample(images).features[-1]  # type: ignore[return-value]  # no pair

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool tokens (B, ..., D) and classify them.

        Returns:
            (B, K), or (B, D) for ``pre_logits`` and without classes; unpooled with
            ``global_pool=''``.
        """
        x = self._pool(tokens, self.global_pool) if self.global_pool else tokens
        x = self.head_drop(x)
        if pre_logits or self.head is None:
            return x
        return self.head(x, self.num_classes)

    def get_classifier(self) -> nn.Module:
        """Head, or an ``nn.Identity`` where there is none."""
        return nn.Identity() if self.head is None else self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one.

        Args:
            num_classes: 0 for no head.
            global_pool: None leaves the pooling.

        Raises:
            ConfigError: If the gate needs the removed head; replace the gate first, with
                ``set_gate``.
        """
        pool = self.global_pool if global_pool is None else self._check_pool(global_pool)
        before = self.num_classes
        self.num_classes = check_integer("num_classes", num_classes, minimum=0)
        try:
            self.set_gate(self.gate)
        except ConfigError:
            self.num_classes = before
            raise
        self.global_pool, head = pool, None
        if num_classes:
            weight = self.norm.weight
            head = NestedLinear(
                self.num_features, num_classes, device=weight.device, dtype=weight.dtype
            )
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
            head.train(self.training)
        self.head = head

    # ---------------------------------------------------------------- features

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Features after blocks (of a pyramid: levels), from each image's exit stage.

        The arguments are timm's; the final norm is applied to levels that it fits, and
        ``stop_early`` has no effect, since later stages need the last block of earlier ones.

        Returns:
            The final tokens, as :meth:`forward_features` gives them, and the features.
        """
        *features, final = self._intermediates(images, indices, norm)
        maps = [self._format(x, images.shape[-2:], output_fmt) for x in features]
        return maps if intermediates_only else (final, maps)

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop the head unless the gate might read it; return non-negative indices.

        No block is dropped, since later stages need all of them, nor the norm before recycling.
        """
        if prune_head and isinstance(self.gate, FixedGate):
            self.reset_classifier(0)
        return feature_take_indices(len(self.feature_info), indices)[0]

    def _intermediates(
        self, images: Tensor, indices: int | Sequence[int] | None, norm: bool
    ) -> tuple[Tensor, ...]:
        """Tokens at blocks or levels, ascending, then the final ones."""
        view = copy.copy(self)  # the same parameters, but other outputs
        view.out_indices = tuple(feature_take_indices(len(self.feature_info), indices)[0])
        view.norm_intermediates = norm
        return view.think_or_sample(images).features  # type: ignore[return-value]  # no pairs

    # ------------------------------------------------------ training, weights

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Enable or disable recomputing activations to save memory in training."""
        self.with_cp = enable

    def load_pretrained(self, path: str) -> None:
        """Load supported weights; see :func:`~tvit_seg.weights.load.load_pretrained`."""
        load_pretrained(self, path)

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ):
        """Load our own weights as torch does; convert others, so that timm's loaders work.

        Weights that are converted by :func:`~tvit_seg.convert_state_dict` need not be complete.
        """
        recycling = any(name.startswith("recycle.") for name in state_dict)
        ours = recycling or state_dict.keys() == self.state_dict().keys()
        if not ours and not isinstance(state_dict, ConvertedStateDict):
            load_weights(self, state_dict, "weights")
            return super().load_state_dict(self.state_dict())  # for its report
        return super().load_state_dict(state_dict, strict, assign)

    # ------------------------------------------------------------------ parts

    def _format(self, x: Tensor, size: torch.Size, output_fmt: str) -> Tensor:
        raise NotImplementedError

    def _pad(self, tokens: Tensor, width: int | None = None) -> Tensor:
        """Tokens (n, ..., d), zero-padded to the full width."""
        return F.pad(tokens, (0, (width or self.num_features) - tokens.shape[-1]))

    def _pool(self, tokens: Tensor, kind: str) -> Tensor:
        return global_pool_nlc(tokens.flatten(1, -2), kind, self.num_prefix_tokens)

    def _check_pool(self, global_pool: str) -> str:
        return check_choice("global_pool", global_pool, ("", *self.pools))
