"""Joint training, gated prediction and cost of the classifier."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.builders import VIT, class_samples, classifier
from helpers.contracts import close

from tvit_seg import EntropyGate, FixedGate, ThinkingClassifier, stage_macs
from tvit_seg.errors import ConfigError, DataError


def images_and_samples(count=6):
    return torch.randn(count, 3, 32, 32), class_samples([i % 5 for i in range(count)])


def median_gate(model, images):
    """Stops half of the images at the first stage."""
    with torch.no_grad():
        entropy = EntropyGate(9).entropy(model.backbone.forward_stages(images)[0])
    return dict(type="EntropyGate", threshold=float(entropy.median()) + 1e-6)


def test_losses_are_weighted_cross_entropies():
    model = classifier(loss_weights=[0.25, 0.75], label_smoothing=0.1).train()
    images, samples = images_and_samples()
    losses = model(images, samples, mode="loss")
    labels = torch.stack([sample.gt_label for sample in samples])
    for stage, (weight, output) in enumerate(
        zip([0.25, 0.75], model.backbone.forward_stages(images), strict=True)
    ):
        expected = weight * F.cross_entropy(output.logits, labels, label_smoothing=0.1)
        close(losses[f"stage{stage}.loss"], expected)
    total, log_vars = model.parse_losses(losses)
    close(total, sum(losses.values()))
    assert set(log_vars) == {"stage0.loss", "stage1.loss", "loss"}


def test_mixed_labels_replace_the_plain_ones():
    model = classifier().train()
    images, samples = images_and_samples(2)
    plain = model.loss(images, samples)["stage0.loss"]
    for sample, score in zip(samples, F.one_hot(torch.tensor([0, 1]), 5).float(), strict=True):
        sample.set_field(score, "gt_score")
    close(model.loss(images, samples)["stage0.loss"], plain)
    for sample in samples:
        sample.gt_score = torch.full((5,), 0.2)
    assert model.loss(images, samples)["stage0.loss"] != plain


def test_sandwich_expects_the_joint_loss():
    backbone = dict(thinking_stages=(1, 2, 3, 4))
    joint = classifier(backbone=backbone).train()
    sandwich = classifier(backbone=backbone, sandwich=True).train()
    sandwich.load_state_dict(joint.state_dict())
    images, samples = images_and_samples()
    expected = joint.loss(images, samples)
    found = {}
    for _ in range(20):
        losses = sandwich.loss(images, samples)
        assert len(losses) == 3
        assert {"stage0.loss", "stage3.loss"} < set(losses)
        found.update(losses)
    close(found["stage0.loss"], expected["stage0.loss"])
    for stage in (1, 2):  # one of two is chosen, so each counts twice
        close(found[f"stage{stage}.loss"], 2 * expected[f"stage{stage}.loss"])


def test_sandwich_gives_no_gradient_to_a_stage_left_out():
    model = classifier(backbone=dict(thinking_stages=(1, 2, 3, 4)), sandwich=True).train()
    losses = model.loss(*images_and_samples())
    sum(losses.values()).backward()
    chosen = next(stage for stage in (1, 2) if f"stage{stage}.loss" in losses)
    left_out = 3 - chosen
    assert model.backbone.recycle[chosen - 1].scale.grad is not None
    assert model.backbone.recycle[left_out - 1].scale.grad is None
    assert model.backbone.recycle[2].scale.grad is not None


@pytest.mark.parametrize("stages", [(2, 4), (1, 2, 4)])
def test_sandwich_of_three_or_fewer_is_everything(stages):
    model = classifier(backbone=dict(thinking_stages=stages), sandwich=True).train()
    assert len(model.loss(*images_and_samples())) == len(stages)


@torch.no_grad()
def test_prediction_and_records():
    model = classifier()
    images, samples = images_and_samples()
    model.backbone.set_gate(median_gate(model, images))
    thought = model.think(images)
    costs = stage_macs(model, (32, 32))
    results = model(images, samples, mode="predict")
    assert results is samples
    close(model(images), thought.logits)
    for i, sample in enumerate(results):
        close(sample.pred_score, thought.logits[i].softmax(-1))
        assert sample.pred_label == thought.logits[i].argmax()
        assert sample.gt_label == i % 5
        assert sample.exit_stage.shape == ()
        assert sample.exit_stage == thought.exit_stage[i]
        close(sample.gate_entropy[0], thought.entropy[i, 0])
        assert math.isnan(sample.gate_entropy[1]) == (sample.exit_stage == 0)
        assert sample.gmacs == pytest.approx(costs[sample.exit_stage] / 1e9)
    assert {int(sample.exit_stage) for sample in results} == {0, 1}
    assert len(model.predict(images)) == 6  # without data samples


@pytest.mark.parametrize("gate", ["median", FixedGate(0)])
@pytest.mark.parametrize("stages", [(2, 4), (1, 2, 4)], ids=["two", "three"])
@torch.no_grad()
def test_running_every_stage_changes_no_result(gate, stages):
    images, _ = images_and_samples(8)
    model = classifier(backbone=dict(thinking_stages=stages))
    model.backbone.set_gate(median_gate(model, images) if gate == "median" else gate)
    expected = model.predict(images)
    model.test_cfg["per_stage"] = True
    for full, plain in zip(model.predict(images), expected, strict=True):
        assert full.exit_stage == plain.exit_stage
        assert full.gmacs == plain.gmacs
        close(full.pred_score, plain.pred_score)
        torch.testing.assert_close(
            full.gate_entropy, plain.gate_entropy, atol=1e-5, rtol=1e-4, equal_nan=True
        )
        close(full.stage_scores[int(full.exit_stage)], full.pred_score)


@torch.no_grad()
def test_a_gate_measures_only_images_that_still_think():
    """One that remembers would count the others too."""
    inner = dict(type="EntropyGate", threshold=1.5)
    gate = dict(type="BudgetGate", gate=inner, think_shares=[0.6, 0.5])
    model = classifier(gate=gate, backbone=dict(thinking_stages=(1, 2, 4)))
    images = torch.randn(60, 3, 32, 32)
    found = []
    for per_stage in (False, True):
        model.test_cfg["per_stage"] = per_stage
        model.backbone.gate.reset()
        results = [sample for batch in images.split(7) for sample in model.predict(batch)]
        found.append([(int(r.exit_stage), r.gmacs) for r in results])
        entropies = torch.stack([r.gate_entropy for r in results])
        exits = torch.stack([r.exit_stage for r in results])
        assert torch.equal(entropies.isnan().sum(1), 2 - exits)
    assert found[0] == found[1]
    assert {stage for stage, _ in found[0]} == {0, 1, 2}


def test_costs_are_counted_once():
    model = classifier()
    first = model.stage_gmacs((32, 32))
    assert model.stage_gmacs((30, 31)) is first  # padded to the same patches
    assert first[0] < first[1]


@pytest.mark.parametrize(
    ("kwargs", "field"),
    [
        (dict(backbone=dict(num_classes=0)), "num_classes"),
        (dict(label_smoothing=1.0), "label_smoothing"),
        (dict(loss_weights=[1.0]), "loss_weights"),
        (dict(test_cfg=dict(mode="whole")), "test_cfg"),
        (dict(init_cfg=dict(type="Normal")), "init_cfg type"),
    ],
)
def test_bad_arguments(kwargs, field):
    with pytest.raises(ValueError, match=field):
        classifier(**kwargs)


def test_a_backbone_that_does_not_think():
    with pytest.raises(ConfigError, match=r"backbone must be a thinking one .*VisionTransformer"):
        ThinkingClassifier(dict(type="mmseg.VisionTransformer", img_size=(32, 32), num_layers=1))


def test_bad_labels_and_modes():
    model = classifier()
    images = torch.randn(2, 3, 32, 32)
    with pytest.raises(DataError, match="labels must be"):
        model.loss(images, class_samples([1, 5]))
    with pytest.raises(ConfigError, match="mode must be"):
        model(images, mode="train")


def test_starts_from_a_file(tmp_path):
    source = classifier()
    torch.save({"state_dict": source.state_dict()}, tmp_path / "whole.pth")
    torch.save({"state_dict": source.backbone.state_dict()}, tmp_path / "backbone.pth")
    for kwargs in (
        dict(pretrained=str(tmp_path / "whole.pth")),
        dict(pretrained=str(tmp_path / "backbone.pth")),
        dict(backbone=dict(pretrained=str(tmp_path / "backbone.pth"))),
    ):
        model = ThinkingClassifier({**VIT, **kwargs.pop("backbone", {})}, **kwargs)
        model.init_weights()
        close(dict(model.backbone.state_dict()), dict(source.backbone.state_dict()))
