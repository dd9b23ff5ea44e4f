"""The unpruned model that a pruned one is distilled from."""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..pretrained import load_pretrained

if TYPE_CHECKING:
    from ..backbones import ThinkingBackbone
    from ..thinking import StageOutput


class Teacher(nn.Module):
    """A frozen copy of a backbone without its pruning, made when it is first asked.

    It is no submodule: optimisers, averaged models and parameter counts do not see it. Only
    ``state_dict`` does, if the copy was made of the backbone's own weights, which a resumed
    training could not know any more.

    Args:
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH)`` for the weights of the copy; None
            for those of the backbone.

    Raises:
        ValueError: If ``init_cfg`` is something else.
    """

    def __init__(self, init_cfg: Mapping | None = None):
        super().__init__()
        if init_cfg is not None and (
            not isinstance(init_cfg, Mapping)
            or init_cfg.get("type") != "Pretrained"
            or not init_cfg.get("checkpoint")
        ):
            raise ValueError(
                f"pruning_loss teacher={init_cfg!r} must be None or "
                "dict(type='Pretrained', checkpoint=PATH)"
            )
        self.init_cfg = init_cfg
        self._weights: dict[str, Tensor] = {}  # from a checkpoint, until there is a copy
        self._copy: list[ThinkingBackbone] = []  # a list hides it from nn.Module

    @torch.no_grad()
    def forward(self, backbone: "ThinkingBackbone", images: Tensor) -> list["StageOutput"]:
        """What the unpruned backbone says.

        Args:
            backbone: The pruned one.
            images: (B, 3, H, W).

        Returns:
            One output for each stage, without gradient.

        Raises:
            ValueError: If the checkpoint lacks something that the backbone has.
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
                raise ValueError(
                    f"pruning_loss teacher={cfg['checkpoint']!r} is no whole backbone: {report}"
                )
        elif self._weights:
            teacher.load_state_dict(self._weights)
            self._weights = {}
        return teacher.requires_grad_(False).eval()

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.init_cfg is None:
            weights = self._copy[0].state_dict() if self._copy else self._weights
            destination.update({f"{prefix}{name}": value for name, value in weights.items()})

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        mine = [name for name in state_dict if name.startswith(prefix)]
        weights = {name.removeprefix(prefix): state_dict.pop(name) for name in mine}
        if self.init_cfg is None and weights:
            self._weights, self._copy = weights, []
        super()._load_from_state_dict(state_dict, prefix, *args)
