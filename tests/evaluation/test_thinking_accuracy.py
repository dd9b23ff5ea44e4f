"""Accuracy of stages and gate."""

import math

import pytest
import torch
from helpers.builders import class_samples, classifier

from tvit_seg import RandomGate
from tvit_seg.evaluation import ThinkingAccuracy


def result(label, exit_stage, stage_scores, gmacs=1.0, per_stage=True):
    scores = torch.tensor(stage_scores)
    found = dict(
        gt_label=torch.tensor(label),
        exit_stage=torch.tensor(exit_stage),
        gate_entropy=torch.zeros(len(scores)),
        pred_score=scores[exit_stage],
        gmacs=gmacs,
    )
    return {**found, "stage_scores": scores} if per_stage else found


def evaluate(*results, topk=(1, 2)):
    metric = ThinkingAccuracy(topk=topk)
    metric.process({}, results)
    return metric.evaluate(len(results))


def test_stages_gate_shares_and_cost():
    right, second, wrong = [0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.1, 0.3, 0.6]
    found = evaluate(
        result(0, 0, [right, wrong], gmacs=1.0),
        result(0, 0, [second, right], gmacs=1.0),
        result(0, 1, [wrong, right], gmacs=4.0),
        result(0, 0, [right, right], gmacs=1.0),
    )
    assert found["accuracy/top1"] == 75
    assert found["accuracy/top2"] == 100
    assert found["accuracy/stage0.top1"] == 50
    assert found["accuracy/stage0.top2"] == 75
    assert found["accuracy/stage1.top1"] == 75
    assert found["accuracy/stage0.share"] == 75
    assert found["accuracy/stage1.share"] == 25
    assert found["accuracy/stage0.exit_top1"] == pytest.approx(66.67)
    assert found["accuracy/stage1.exit_top1"] == 100
    assert found["accuracy/gmacs"] == 1.75


def test_what_is_not_known_is_left_out():
    found = evaluate(result(0, 0, [[0.9, 0.1], [0.9, 0.1]], per_stage=False))
    assert "accuracy/stage0.top1" not in found
    assert math.isnan(found["accuracy/stage1.exit_top1"])
    assert found["accuracy/stage1.share"] == 0


@torch.no_grad()
def test_on_a_classifier():
    model = classifier(RandomGate(0.5, seed=0), test_cfg=dict(per_stage=True))
    images, labels = torch.randn(40, 3, 32, 32), [i % 5 for i in range(40)]
    results = [sample.to_dict() for sample in model.predict(images, class_samples(labels))]
    found = evaluate(*results, topk=(1,))
    outputs = model.backbone.forward_stages(images)
    for stage, output in enumerate(outputs):
        accuracy = (output.logits.argmax(1) == torch.tensor(labels)).float().mean()
        assert found[f"accuracy/stage{stage}.top1"] == pytest.approx(
            100 * accuracy.item(), abs=0.01
        )
    accuracy = (model(images).argmax(1) == torch.tensor(labels)).float().mean()
    assert found["accuracy/top1"] == pytest.approx(100 * accuracy.item(), abs=0.01)
    assert 0 < found["accuracy/stage0.share"] < 100


def test_bad_input():
    with pytest.raises(ValueError, match=r"topk=\(0,\) must be integers"):
        ThinkingAccuracy(topk=(0,))
    with pytest.raises(ValueError, match="above the number of classes, 2"):
        evaluate(result(0, 0, [[0.9, 0.1]]), topk=(5,))
    with pytest.raises(KeyError, match="needs a ThinkingClassifier"):
        ThinkingAccuracy().process({}, [dict(gt_label=torch.tensor(0))])
