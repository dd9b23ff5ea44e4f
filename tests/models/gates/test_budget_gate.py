"""A budget holds, also where the data drifts."""

import numpy as np
import pytest
import torch

from tvit_seg import BudgetGate, EntropyGate, ThinkingViT
from tvit_seg.errors import ConfigError
from tvit_seg.models.gates import build_gate
from tvit_seg.thinking import StageOutput

COSTS = np.array([1.0, 4.0])


def thinks(gate, entropies, batch=1, stage=0):
    """Images that go on, as a mask; the gate gets them in batches."""
    output = StageOutput(stage, 2, None, (), None)
    chunks = torch.as_tensor(entropies, dtype=torch.float).split(batch)
    return ~torch.cat([gate.stop(output, chunk) for chunk in chunks])


def cost(thought):
    return COSTS[thought.int().numpy()].mean()


def drifting(count=1000, seed=0):
    """Entropies that rise by half and fall again, as when fog comes and goes."""
    rng = np.random.default_rng(seed)
    drift = 1 + 0.5 * np.sin(np.linspace(0, np.pi, count)) ** 2
    return rng.uniform(0.2, 1.0, count) * drift


def test_drifting_data():
    """Calibrated on the first images; the target is that 30 % think."""
    entropies = drifting()
    threshold = np.quantile(entropies[:100], 0.7)
    target = COSTS @ [0.7, 0.3]
    fixed = ~EntropyGate(threshold).stop(None, torch.as_tensor(entropies))
    assert cost(fixed) > 1.15 * target
    adaptive = thinks(BudgetGate(EntropyGate(threshold), 0.3), entropies)
    assert cost(adaptive) == pytest.approx(target, rel=0.03)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_holds_at_any_time(share):
    thought = thinks(BudgetGate(EntropyGate(0.5), share, tolerance=0.02), drifting())
    came = np.arange(1, 1001)
    off = np.abs(np.cumsum(thought.numpy()) - share * came)
    assert (off <= np.maximum(1.0, 0.02 * came) + 1e-9).all()


def test_the_most_uncertain_think():
    entropies = np.random.default_rng(1).permutation(np.linspace(0, 1, 2000))
    thought = thinks(BudgetGate(EntropyGate(0.7), 0.3), entropies).numpy()
    best = 0.85  # mean of the highest 30 %
    assert entropies[thought].mean() == pytest.approx(best, abs=0.03)


@pytest.mark.parametrize("batch", [7, 200])
def test_a_batch_gives_what_one_by_one_gives(batch):
    entropies = drifting(200)
    one, many = (BudgetGate(EntropyGate(0.5), [0.3, 0.6]) for _ in range(2))
    for stage in range(2):
        alone = thinks(one, entropies, 1, stage)
        assert torch.equal(alone, thinks(many, entropies, batch, stage))


def test_reset():
    gate, entropies = BudgetGate(EntropyGate(0.5), 0.4), drifting(100)
    first = thinks(gate, entropies)
    gate.reset()
    assert torch.equal(thinks(gate, entropies), first)


def test_images_without_entropy_go_on_and_change_no_quantile():
    rng = np.random.default_rng(3)
    entropies = rng.uniform(0, 1, 400)
    entropies[100] = np.nan
    thought = thinks(BudgetGate(EntropyGate(0.7), 0.3), entropies).numpy()
    assert thought[100]
    entropies[100] = 0
    assert entropies[101:][thought[101:]].mean() > 0.8


def test_in_a_backbone():
    """Configured by name; the loop keeps account of what the inner gate measures."""
    gate = dict(type="BudgetGate", gate=dict(type="EntropyGate", threshold=1.0), think_shares=[0.5])
    backbone = ThinkingViT(
        img_size=32, patch_size=8, embed_dims=32, num_layers=1, num_heads=4,
        thinking_stages=(2, 4), num_classes=5, gate=gate,
    ).eval()  # fmt: skip
    with torch.no_grad():
        thought = backbone.think(torch.randn(40, 3, 32, 32))
    assert (thought.exit_stage == 1).sum().item() in (19, 20, 21)
    assert not thought.entropy[:, 0].isnan().any()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (dict(gate=dict(type="FixedGate", stage=0)), "BudgetGate gate"),
        (dict(think_shares=1.2), "think_shares"),
        (dict(think_shares=[0.5, -0.1]), "think_shares"),
        (dict(window=3), "window"),
        (dict(tolerance=-0.1), "tolerance"),
    ],
)
def test_bad_arguments(options, field):
    config = dict(type="BudgetGate", gate=dict(type="EntropyGate", threshold=0.5), think_shares=0.5)
    with pytest.raises(ConfigError, match=f"{field} must be"):
        build_gate({**config, **options})


def test_one_share_for_each_stage():
    gate = BudgetGate(EntropyGate(0.5), [0.5, 0.5])
    with pytest.raises(ConfigError, match="think_shares must be one value"):
        ThinkingViT(thinking_stages=(1, 2), num_layers=1, num_classes=5, gate=gate)
