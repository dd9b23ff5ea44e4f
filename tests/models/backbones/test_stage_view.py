"""One stage as a plain module: what a hook sees belongs to the stage's prediction."""

import copy

import pytest
import torch
from helpers.builders import VIT, segmentor
from helpers.deployment import SWIN
from mmseg.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tvit_seg.errors import ConfigError
from tvit_seg.models.backbones.stage_view import share

IMAGES = torch.randn(2, 3, 40, 33)


@pytest.fixture(params=[VIT, SWIN], ids=["vit", "swin"])
def backbone(request):
    """A fresh backbone, whose recycling adds nothing yet."""
    return MODELS.build(dict(request.param)).eval()


@pytest.mark.parametrize("output", ["features", "logits", "tokens"])
def test_equals_the_stage(backbone, output):
    nn.init.constant_(backbone.recycle[0].scale, 0.7)
    for stage, expected in enumerate(backbone.forward_stages(IMAGES)):
        found = backbone.as_stage(stage, output)(IMAGES)
        torch.testing.assert_close(found, getattr(expected, output))


def test_each_part_runs_once_at_its_width(backbone):
    calls = {}
    for stage in range(2):
        view = backbone.as_stage(stage, "logits")
        for name, part in view.named_modules():
            if isinstance(part, (nn.Linear, nn.LayerNorm)):
                part.register_forward_hook(
                    lambda part, inputs, _, key=(stage, name): calls.setdefault(key, []).append(
                        inputs[0].shape[-1]
                    )
                )
        view(IMAGES)
    assert all(len(widths) == 1 for widths in calls.values())
    assert calls[0, "norm"] < calls[1, "norm"]


def test_activation_of_the_last_stage_gets_gradients(backbone):
    """What grad-cam reads; of the first of two runs it is zero while recycling adds nothing."""
    found = []
    view = backbone.as_stage(-1, "logits")
    view.norm.register_forward_hook(lambda *args: found.append(args[-1]))
    logits = view(IMAGES)
    (activation,) = found
    gradient = torch.autograd.grad(logits[:, 0].sum(), activation)[0]
    assert gradient.abs().sum() > 0


def test_shares_parameters_and_leaves_the_backbone_alone(backbone):
    view = backbone.train().as_stage(1)
    mine, theirs = dict(view.named_parameters()), dict(backbone.named_parameters())
    assert {name: id(p) for name, p in mine.items()} == {n: id(p) for n, p in theirs.items()}
    view.eval()
    assert backbone.training and backbone.norm.training and not view.norm.training
    view.double()
    assert backbone.norm.weight.dtype == torch.double
    backbone.float()


def test_hooks_of_the_backbone_are_not_copied(backbone):
    backbone.norm.register_forward_hook(lambda *_: pytest.fail("called"))
    backbone.as_stage(1)(IMAGES)
    assert len(backbone.norm._forward_hooks) == 1
    assert not share(backbone).norm._forward_hooks


def test_can_be_copied(backbone):
    view = copy.deepcopy(backbone.as_stage(1))
    assert view.norm.weight is not backbone.norm.weight
    assert view._hidden[0].norm is view.norm


def test_operators_of_both_stages_are_counted(backbone):
    counts = []
    for stage in range(2):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            backbone.as_stage(stage, "logits")(IMAGES)
        counts.append(counter.get_total_flops())
    assert 0 < counts[0] < counts[1]


@pytest.mark.parametrize("options", [dict(stage=2), dict(output="classes")])
def test_bad_arguments(backbone, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        backbone.as_stage(**options)


def test_grad_cam(backbone):
    cam = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    view = backbone.as_stage(1, "logits")
    grid = None if backbone.norm.weight.ndim != 1 else [-(-s // 8) for s in (40, 33)]

    def to_map(x):  # (B, 1 + h w, d), or (B, h, w, d) of a pyramid
        return x.movedim(-1, 1) if x.ndim == 4 else x[:, 1:].mT.unflatten(2, grid)

    layer = view.norm if hasattr(view, "layers") else view.blocks[-1].norm1
    with cam.GradCAM(model=view, target_layers=[layer], reshape_transform=to_map) as method:
        heat = method(IMAGES.clone(), targets=None)
    assert heat.shape == (2, 40, 33) and heat.max() > 0


def test_a_stage_whose_tokens_are_chosen_by_a_decode_head():
    pruning = dict(type="UncertaintyPruning", keep_ratio=0.5)
    backbone = segmentor(backbone=dict(pruning=pruning)).backbone
    assert backbone.as_stage(0, "tokens")(IMAGES).shape[0] == 2
    message = r"before stage 1, whose tokens UncertaintyPruning chooses .*set_pruning\(None\)"
    with pytest.raises(ConfigError, match=message):
        backbone.as_stage(1)
    backbone.pruning.keep_ratio = 1.0
    backbone.as_stage(1)(IMAGES)
    backbone.pruning.keep_ratio = 0.5
    backbone.set_pruning(None)
    backbone.as_stage(1)(IMAGES)
