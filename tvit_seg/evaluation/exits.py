"""Exits in models that are unaware of stages, such as mmseg's plain ``EncoderDecoder``."""

from typing import Any

import torch

from ..cost import stage_gmacs
from ..errors import ConfigError
from ..thinking import RUNS


def take_exits(count: int) -> list[dict[str, Any]]:
    """Take the exits of the latest batch, of ``count`` images, out of the backbone's record.

    Returns:
        For each image, as in the results of a ``ThinkingEncoderDecoder``: ``exit_stage`` (W,),
        ``gate_entropy`` (W, number of stages), ``gmacs`` of the backbone alone, and ``windows``
        (W, 4), or None for sliding windows, which mmseg does not tell. Empty if no thinking
        backbone has run.

    Raises:
        ConfigError: The backbone has run on other images too.
    """
    runs = [run for run in RUNS if run.backbone() is not None]  # of models that still exist
    RUNS.clear()
    if not runs:
        return []
    if any(len(run.exit_stage) != count for run in runs):
        sizes = [len(run.exit_stage) for run in runs]
        raise ConfigError(f"exits are known of batches {sizes}, but there are {count} results")
    exits = torch.stack([run.exit_stage.cpu() for run in runs], dim=1)  # (B, W)
    entropies = torch.stack([run.entropy.cpu() for run in runs], dim=1)  # (B, W, stages)
    costs = torch.stack([stage_gmacs(run.backbone(), run.size) for run in runs])  # (W, stages)
    gmacs = costs.gather(1, exits.T).sum(0)  # (B,)
    windows = torch.tensor([[0.0, 0, 1, 1]]) if len(runs) == 1 else None
    return [
        dict(exit_stage=e, gate_entropy=h, gmacs=float(g), windows=windows, backbone_only=True)
        for e, h, g in zip(exits, entropies, gmacs, strict=True)
    ]
