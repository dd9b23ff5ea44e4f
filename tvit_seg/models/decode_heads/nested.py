"""Decode heads and necks that run at the width of the features they get.

Zero-padding stays the interface: narrow maps arrive padded to the full width, together with the
stage that each image's come from. A nested head undoes it, and runs the plain head of that width on
leading slices of its own weights. At full width it is mmseg's head.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...errors import ConfigError, ExportError
from ...thinking import StagedFeatures
from ...utils.checks import check
from .narrowing import cut
from .trace import Plan, narrow_head, skeleton, trace

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Nested:
    """A decode head or neck at the width of its features; :func:`nest` makes it of mmseg's class.

    Attributes:
        plain: mmseg's class.
        plans: The head at each stage.
        norms: Names of the norms that keep statistics. Their own are those of the last stage, each
            earlier one has its own beside them, since features of other widths differ (slimmable
            networks, https://arxiv.org/abs/1812.08928).
    """

    plain: type[nn.Module]
    plans: list[Plan]
    norms: list[str]

    def forward(self, features: Sequence[Tensor]) -> object:
        """Decode each image at the width of its stage.

        Args:
            features: Maps (n, C, H', W'), narrow ones zero-padded. Where they carry no stage, they
                are taken to be of full width.

        Returns:
            What mmseg's head gives; narrow maps of a neck are zero-padded again.
        """
        stages = getattr(features, "exit_stage", None)
        if stages is None:
            return super().forward(features)
        if isinstance(stages, int):
            outputs = self._decode(features, stages)
        else:
            outputs = self._decode_groups(features, stages)
        return outputs if _gives_classes(self) else StagedFeatures(outputs, stages)

    def weights_of(self, stage: int) -> dict[str, Tensor]:
        """Cut parameters and buffers to those of a stage's plain head, by its names.

        They are views, except of weights whose input is concatenated: those are copies.
        """
        weights = self.plans[stage].read(self)
        for i, name, plain in self._narrow_statistics():
            statistic = weights.pop(name)
            if i == stage:
                weights[plain] = statistic
        return weights

    def __reduce__(self) -> tuple:
        return _empty, (self.plain,), vars(self)  # its class is made at run time

    def _decode_groups(self, features: Sequence[Tensor], stages: Tensor) -> object:
        """Decode the images of each stage together; return outputs in the order of the batch."""
        if self.training and get_world_size() > 1 and self._synchronises:
            raise ConfigError(
                f"a nested {self.plain.__name__} cannot train with SyncBN on images of several "
                "stages, which differ between processes: use BN, or a ThinkingEncoderDecoder"
            )
        found, device = stages.unique().tolist(), features[0].device
        rows = [(stages == stage).nonzero().flatten() for stage in found]
        outputs = []
        for stage, row in zip(found, rows, strict=True):
            group = [x.index_select(0, row.to(device, non_blocking=True)) for x in features]
            leaves, spec = tree_flatten(self._decode(group, stage))
            outputs.append(leaves)
        order = torch.cat(rows).argsort().to(device, non_blocking=True)
        joined = [torch.cat(parts).index_select(0, order) for parts in zip(*outputs, strict=True)]
        return tree_unflatten(joined, spec)

    def _decode(self, features: Sequence[Tensor], stage: int) -> object:
        """Decode images of one stage."""
        plan = self.plans[stage]
        if plan.narrow is None:
            return super().forward(features)
        if torch.jit.is_tracing():  # where torch refuses functional_call
            raise ExportError(
                f"torch.jit cannot trace a nested {self.plain.__name__} at the width of "
                f"stage {stage}: use torch.export or tools/export_onnx.py, or the last stage"
            )
        own = dict(self.named_modules())
        for name, module in plan.narrow.named_modules():
            if name and type(module) is not type(own[name]):  # norms were converted since
                plan.narrow = narrow_head(_without_nesting(self), plan)
                return self._decode(features, stage)
            module.training = own[name].training
        maps = [x[:, :width].contiguous() for x, width in zip(features, plan.widths, strict=True)]
        outputs = functional_call(plan.narrow, self.weights_of(stage), (maps,))
        if _gives_classes(self):
            return outputs
        return tuple(
            F.pad(x, (0, 0, 0, 0, 0, width - x.shape[1]))
            for x, width in zip(outputs, plan.full_out, strict=True)
        )

    @property
    def _synchronises(self) -> bool:
        return any(isinstance(module, nn.SyncBatchNorm) for module in self.modules())

    def _narrow_statistics(self) -> Iterator[tuple[int, str, str]]:
        """Yield stage, name, and name in a plain head of each statistic of narrow stages."""
        for stage in range(len(self.plans) - 1):
            for norm in self.norms:
                for name in _STATISTICS:
                    yield stage, f"{norm}.stage{stage}.{name}", f"{norm}.{name}"

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Load as torch does; statistics that the weights lack are copied from the last stage's."""
        copied = []
        for stage, name, plain in self._narrow_statistics():
            value = state_dict.get(prefix + plain)
            if prefix + name not in state_dict and value is not None:
                value = cut(value, self.plans[stage].cuts.get(plain, {}))
                state_dict[prefix + name] = value.clone()
                copied.append(name)
        if copied:
            print_log(
                f"{prefix}*: {len(copied)} statistics of narrow stages are not in the weights and "
                f"were copied from the last stage's, such as {copied[0]}",
                logger="current",
                level=logging.WARNING,
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class _Statistics(nn.Module):
    """A norm's statistics in a stage before the last."""

    def __init__(self, norm: _NormBase, runs: dict):
        super().__init__()
        for name in _STATISTICS:
            value = getattr(norm, name)
            self.register_buffer(name, cut(value, runs if value.ndim else {}).clone())


def nest(
    head: nn.Module, full_channels: Sequence[int], stage_channels: Sequence[Sequence[int]]
) -> nn.Module:
    """Make a decode head or neck follow the width of the features it gets.

    Every layer is cut to ``d / D`` of its channels, rounded down, where d of the D channels of the
    last map are there. Each part of a concatenation, attention heads and groups of norms follow.
    What comes out, scores of classes, is not cut.

    Args:
        head: mmseg's, changed in place. Names and shapes of its weights stay; norms with statistics
            get further ones, ``stage{i}.running_mean`` and so on.
        full_channels: Of each map.
        stage_channels: For each thinking stage the channels of each map that are not padding.

    Returns:
        The head.

    Raises:
        ConfigError: If the head cannot be nested; the message names the layer.
    """
    check(not isinstance(head, Nested), "head", type(head).__name__, "a plain head")
    try:
        plans = [trace(head, widths, full_channels) for widths in stage_channels]
    except ConfigError as error:
        raise ConfigError(f"{type(head).__name__} cannot be nested, {error}") from error
    if plans[-1].widths == tuple(full_channels):
        plans[-1].narrow = None  # nothing is cut: the head itself runs
    norms = [
        name
        for name in plans[-1].attributes
        if getattr(head.get_submodule(name), "running_mean", None) is not None
    ]
    for norm in norms:
        module = head.get_submodule(norm)
        for stage, plan in enumerate(plans[:-1]):
            runs = plan.cuts[f"{norm}.running_mean"]
            module.add_module(f"stage{stage}", _Statistics(module, runs))
    for part in (head, *(plan.narrow for plan in plans if plan.narrow is not None)):
        for module in part.modules():
            if isinstance(module, _NormBase) and not isinstance(module, nn.SyncBatchNorm):
                module.register_forward_pre_hook(_use_running_statistics)
                module.register_forward_hook(_use_own_statistics, always_call=True)
    head.__class__ = _nested_class(type(head))
    head.plans, head.norms = plans, norms
    return head


def plain_head(head: Nested, stage: int) -> nn.Module:
    """Make a plain head of one stage's width, for publishing that stage alone.

    Args:
        head: A nested one.
        stage: Index of the stage, from 0.

    Returns:
        A head of mmseg's class with weights of its own.
    """
    plan = head.plans[stage]
    plain = narrow_head(_without_nesting(head), plan).train(head.training)
    for name, x in head.weights_of(stage).items():
        owner, _, leaf = name.rpartition(".")
        module, value = plain.get_submodule(owner), x.detach().clone()
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(value, module._parameters[leaf].requires_grad)
        else:
            module._buffers[leaf] = value
    return plain


@cache
def _nested_class(plain: type[nn.Module]) -> type[Nested]:
    return type(plain.__name__, (Nested, plain), dict(plain=plain, __doc__=plain.__doc__))


def _empty(plain: type[nn.Module]) -> Nested:
    cls = _nested_class(plain)
    return cls.__new__(cls)


def _without_nesting(head: Nested) -> nn.Module:
    """The plain head, whose weights hold no data."""
    plain = skeleton(head)
    plain.__class__ = head.plain
    for norm in plain.norms:
        for stage in range(len(plain.plans) - 1):
            delattr(plain.get_submodule(norm), f"stage{stage}")
    del plain.plans, plain.norms
    return plain


def _gives_classes(head: nn.Module) -> bool:
    """Tell decode heads from necks."""
    return hasattr(head, "num_classes")


def _use_running_statistics(norm: _NormBase, args: tuple[Tensor, ...]) -> None:
    """Let a norm use its running statistics where there is one value to a channel.

    So it is in training for a pooled branch when a single image of a batch exits at a stage.
    """
    x = args[0]
    norm.has_one_value = norm.training and x.numel() == x.shape[1]
    norm.training = norm.training and not norm.has_one_value


def _use_own_statistics(norm: _NormBase, *_: object) -> None:
    norm.training = norm.training or norm.has_one_value
