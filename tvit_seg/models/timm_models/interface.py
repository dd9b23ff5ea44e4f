"""What timm, its scripts and its users ask of a model, on top of a thinking backbone."""

import copy
from collections.abc import Mapping, Sequence

import torch
from timm.models._features import feature_take_indices
from timm.models.vision_transformer import global_pool_nlc
from torch import Tensor, nn
from torch.nn import functional as F

from ...thinking import StageOutput
from ...weights.convert import ConvertedStateDict
from ...weights.load import load_pretrained, load_weights
from ..backbones import ThinkingBackbone
from ..backbones.base import check_num_classes
from ..gates import EntropyGate, FixedGate, Gate
from ..layers import NestedLinear


class _TopEntropyGate(EntropyGate):
    """Counts the ten most probable classes, or all where the backbone has no more."""

    def check(self, backbone: ThinkingBackbone) -> None:
        topk = 10 if backbone.num_classes > 10 else None
        EntropyGate(self.threshold, topk).check(backbone)
        self.topk = topk


class TimmInterface(ThinkingBackbone):
    """A thinking backbone as timm's image classifiers are; goes before a backbone as a base.

    In evaluation each image's prediction is that of the stage where it stopped. In training it is
    that of a stage drawn with the loss weights, see
    :meth:`~tvit_seg.models.ThinkingBackbone.think_or_draw`: any criterion that averages over
    images then estimates the joint loss of all stages without bias.

    What comes from narrow stages is zero-padded, so that all images of a batch have
    ``num_features`` channels; to the linear head that is the same as the narrow prediction. The
    ``features`` of stages and thoughts are tokens here, not maps: the blocks (levels) of
    ``out_indices``, then the final tokens.

    Args:
        num_classes: Classes of the head; 0 for none, then the model returns pooled features.
        in_chans: Channels of the image.
        global_pool: What the head, and with it an entropy gate, reads of the final tokens;
            ``''`` returns them all, and leaves the gate the backbone's own choice.
        drop_rate: Dropout rate before the head.
        proj_drop_rate: Dropout rate after embedding and projections.
        gate: Says which images stop; a config, a gate, or None to think to the end always.
        threshold: In nats; short for an ``EntropyGate`` that counts the ten most probable classes,
            as the published thresholds do (all classes where there are no more).
        joint: Whether the model in training returns the logits of all stages, a list of (B, K),
            which :class:`JointLoss` turns into the joint loss itself.
        **kwargs: Further arguments of the backbone. The losses of its ``pruning`` are those of
            ``ThinkingClassifier``: pruned models can be evaluated here, not trained.

    Raises:
        ValueError: If an argument is out of range; the message names it and what is allowed.
        TypeError: If an argument is unknown.
    """

    pools: tuple[str, ...]
    """Values of ``global_pool``, the backbone's own choice first."""

    num_prefix_tokens = 0
    """How many tokens come before those of patches."""

    norm_intermediates = False
    """Whether the final norm is applied to intermediate features."""

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str | None = None,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        gate: Gate | dict | None = None,
        threshold: float | None = None,
        joint: bool = False,
        **kwargs,
    ):
        if gate is not None and threshold is not None:
            raise ValueError(f"give gate={gate!r} or threshold={threshold!r}, not both")
        if not isinstance(in_chans, int) or in_chans < 1:
            raise ValueError(f"in_chans={in_chans!r} must be an integer >= 1")
        super().__init__(
            in_channels=in_chans, drop_rate=proj_drop_rate, num_classes=num_classes, **kwargs
        )
        self.out_indices = ()
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = self.norm.weight.shape[0]
        self.global_pool = self._check_pool(self.pools[0] if global_pool is None else global_pool)
        self.head_drop = nn.Dropout(drop_rate)
        self.joint = joint
        self.set_gate(gate if threshold is None else _TopEntropyGate(threshold))

    # ------------------------------------------------------------- classifying

    def pool(self, tokens: Tensor) -> Tensor:
        """As ``global_pool`` says; see :meth:`ThinkingBackbone.pool`."""
        return self._pool(tokens, self.global_pool or self.pools[0])

    def run_stage(self, *args) -> StageOutput:
        """As the backbone, but features are tokens, the final ones last."""
        output = super().run_stage(*args)
        output.features = (*output.features, self._pad(output.tokens))
        return output

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of the stage where each image stopped; in training of a drawn one, or of all.

        Args:
            images: (B, C, H, W), any size.

        Returns:
            (B, K), or (B, D) without classes; with ``joint`` in training one for each stage.
        """
        if self.joint and self.training:
            return [self.forward_head(out.features[-1]) for out in self.iter_stages(images)]
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Final tokens of the stage where each image stopped, (B, ..., D)."""
        return self.think_or_draw(images).features[-1]

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Pools tokens and classifies them.

        Args:
            tokens: (B, ..., D) from :meth:`forward_features`.
            pre_logits: Whether to return what the head would read.

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
        """The head; an ``nn.Identity`` where there is none."""
        return nn.Identity() if self.head is None else self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head by a new one.

        Args:
            num_classes: 0 for no head.
            global_pool: None keeps what it is.

        Raises:
            ValueError: If an argument is out of range, or the gate needs a head that would not be
                there; replace it first, with ``set_gate``.
        """
        pool = self.global_pool if global_pool is None else self._check_pool(global_pool)
        before, self.num_classes = self.num_classes, check_num_classes(num_classes)
        try:
            self.set_gate(self.gate)
        except ValueError:
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
        """Features after blocks (of a pyramid: levels), each image's of the stage it stopped at.

        Args:
            images: (B, C, H, W), any size.
            indices: Which; an integer takes the last ones, None all.
            norm: Whether to apply the final norm to them, where it fits.
            stop_early: Has no effect: later stages need the last block of earlier ones.
            output_fmt: ``'NCHW'``, or for a ViT ``'NLC'``.
            intermediates_only: Whether to leave out the final tokens.

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
        """Drops the head if nothing reads it; no block, since later stages need all of them.

        Args:
            indices: As in :meth:`forward_intermediates`.
            prune_norm: Has no effect: recycled tokens are normed.
            prune_head: Whether to drop the head, unless the gate might read it.

        Returns:
            The indices from 0.
        """
        if prune_head and isinstance(self.gate, FixedGate):
            self.reset_classifier(0)
        return feature_take_indices(len(self.feature_info), indices)[0]

    def _intermediates(
        self, images: Tensor, indices: int | Sequence[int] | None, norm: bool
    ) -> tuple[Tensor, ...]:
        """Tokens at the given blocks or levels, ascending, then the final ones."""
        view = copy.copy(self)  # the same parameters, but other outputs
        view.out_indices = feature_take_indices(len(self.feature_info), indices)[0]
        view.norm_intermediates = norm
        return view.think_or_draw(images).features

    # ------------------------------------------------------ training, weights

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory in training, or no longer.

        Args:
            enable: Whether to.
        """
        self.with_cp = enable

    def load_pretrained(self, path: str) -> None:
        """Loads anybody's weights; see :func:`~tvit_seg.weights.load.load_pretrained`."""
        load_pretrained(self, path)

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ):
        """As in torch; weights of others are converted first, so that timm's loaders read them.

        Args:
            state_dict: Ours, or those that :func:`~tvit_seg.convert_state_dict` knows, which need
                not hold every parameter.
            strict: As in torch, for our own.
            assign: As in torch, for our own.
        """
        recycling = any(name.startswith("recycle.") for name in state_dict)
        ours = recycling or state_dict.keys() == self.state_dict().keys()
        if not ours and not isinstance(state_dict, ConvertedStateDict):
            load_weights(self, state_dict, "weights")
            return super().load_state_dict(self.state_dict())  # for the account of it
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
        if global_pool not in ("", *self.pools):
            raise ValueError(f"global_pool={global_pool!r} must be '' or one of {self.pools}")
        return global_pool
