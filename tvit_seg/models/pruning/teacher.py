"""Unpruned teacher of a pruned model."""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from ...utils.checks import check
from ...weights.load import load_pretrained

if TYPE_CHECKING:
    from ...thinking import StageOutput
    from ..backbones import ThinkingBackbone


class Teacher(nn.Module):
    """Frozen copy of a backbone without its pruning, made when it is first called.

    It is neither a submodule nor in the ``state_dict``, so that optimisers, averaged models,
    parameter counts and weight loading ignore it. A copy of the backbone's own weights is
    saved by :class:`~tvit_seg.engine.hooks.resume.TeacherHook`, for a resumed training.

    Args:
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH)`` for the weights of the copy; None
            for those of the backbone.
    """

    def __init__(self, init_cfg: Mapping | None = None):
        super().__init__()
        if init_cfg is not None:
            fits = isinstance(init_cfg, Mapping) and init_cfg.get("type") == "Pretrained"
            fits = fits and init_cfg.keys() - {"type", "prefix", "ema"} == {"checkpoint"}
            allowed = "None or dict(type='Pretrained', checkpoint=PATH, prefix=..., ema=...)"
            check(fits, "pruning_loss teacher", init_cfg, allowed)
        self.init_cfg = init_cfg
        self._weights: dict[str, Tensor] = {}  # from a checkpoint, until there is a copy
        self._copy: list[ThinkingBackbone] = []  # a list hides it from nn.Module

    def prepare(self, backbone: "ThinkingBackbone") -> None:
        """Read the checkpoint, if there is one, before the first step needs it.

        Args:
            backbone: The pruned one.

        Raises:
            CheckpointError: If it cannot be read or lacks weights of the backbone.
        """
        if self.init_cfg is not None and not self._copy:
            self._copy.append(self._make(backbone))

    @torch.no_grad()
    def forward(self, backbone: "ThinkingBackbone", images: Tensor) -> list["StageOutput"]:
        """Outputs of every stage of the unpruned backbone, without gradient.

        Args:
            backbone: The pruned one.
            images: (B, 3, H, W).
        """
        if not self._copy:
            self._copy.append(self._make(backbone))
        return self._copy[0].to(images.device).forward_stages(images)

    def _make(self, backbone: "ThinkingBackbone") -> "ThinkingBackbone":
        teacher = copy.deepcopy(backbone)
        teacher.pruning = None
        teacher.zero_grad(set_to_none=True)
        if self.init_cfg is not None:
            cfg = self.init_cfg
            args = (cfg["checkpoint"], cfg.get("prefix"), cfg.get("ema", False))
            report = load_pretrained(teacher, *args)
            if report.missing or report.partial:
                raise CheckpointError(
                    f"pruning_loss teacher={cfg['checkpoint']!r} is not a full backbone: {report}"
                )
        elif self._weights:
            teacher.load_state_dict(self._weights)
            self._weights = {}
        return teacher.requires_grad_(False).eval()

    @property
    def weights(self) -> dict[str, Tensor]:
        """Weights for a resumed training; empty before the first step, or with a checkpoint."""
        if self.init_cfg is not None:
            return {}
        return self._copy[0].state_dict() if self._copy else self._weights

    @weights.setter
    def weights(self, weights: dict[str, Tensor]) -> None:
        self._weights, self._copy = weights, []
