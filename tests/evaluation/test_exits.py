"""Exits of a thinking backbone in mmseg's plain EncoderDecoder."""

import gc
import logging

import pytest
import torch
from helpers.builders import LINEAR, VIT, batch, lively
from mmengine.config import ConfigDict
from mmseg.registry import MODELS

from tvit_seg import EntropyGate, FixedGate, RandomGate, stage_macs
from tvit_seg.engine.hooks.exit_log import ExitLogHook
from tvit_seg.errors import ConfigError
from tvit_seg.evaluation import ThinkingMetric

WHOLE = dict(mode="whole")
SLIDE = dict(mode="slide", crop_size=(32, 32), stride=(24, 24))


def plain(gate, test_cfg=WHOLE):
    preprocessor = dict(type="SegDataPreProcessor")
    cfg = dict(backbone=dict(VIT, gate=gate), decode_head=LINEAR, data_preprocessor=preprocessor)
    return lively(MODELS.build(ConfigDict(type="EncoderDecoder", test_cfg=test_cfg, **cfg)))


@torch.no_grad()
def results(model, count=4, size=(32, 32)):
    images, samples = batch(count, size)
    return model.test_step(dict(inputs=list(images), data_samples=samples))


def evaluate(model, **options):
    metric = ThinkingMetric()
    metric.dataset_meta = dict(classes=tuple("abcde"))
    for _ in range(2):
        metric.process({}, [sample.to_dict() for sample in results(model, **options)])
    return metric.evaluate(8)


def test_shares_quality_and_cost():
    model = plain(RandomGate(0.5, seed=1))
    found = evaluate(model)
    share = found["thinking/stage0.share"]
    assert 0 < share < 100 and share + found["thinking/stage1.share"] == 100
    costs = [macs / 1e9 for macs in stage_macs(model.backbone, (32, 32))]
    expected = (share * costs[0] + (100 - share) * costs[1]) / 100
    assert found["thinking/gmacs"] == pytest.approx(expected, abs=1e-4)
    assert found["thinking/stage0.mIoU"] >= 0


def test_windows():
    found = evaluate(plain(FixedGate(0), SLIDE), size=(50, 61))
    assert found["thinking/stage0.share"] == 100
    assert "thinking/stage0.mIoU" not in found  # mmseg does not tell where windows are


def test_exits_of_earlier_images_are_forgotten():
    model = plain(FixedGate(1))
    results(model, 3)
    model.eval()  # as an evaluation begins
    assert evaluate(model)["thinking/stage1.share"] == 100


def test_other_images_in_between_are_an_error():
    model = plain(FixedGate(1))
    results(model, 3)
    with pytest.raises(ConfigError, match="batches"):
        evaluate(model)


def test_backbones_that_are_gone_are_forgotten():
    results(plain(FixedGate(1)), 3)
    gc.collect()
    assert evaluate(plain(FixedGate(0)))["thinking/stage0.share"] == 100


def test_another_backbone():
    metric = ThinkingMetric()
    with pytest.raises(ConfigError, match="thinking backbone"):
        metric.process({}, [dict(pred_sem_seg=None)])


class Runner:
    def __init__(self, *metrics):
        self.test_evaluator = type("Evaluator", (), {"metrics": metrics})
        self.logger = logging.getLogger("exits")


@pytest.mark.parametrize(("metrics", "lines"), [((), 1), ((ThinkingMetric(),), 0)])
def test_log_line(caplog, metrics, lines):
    model, hook, runner = plain(FixedGate(0)), ExitLogHook(), Runner(*metrics)
    with caplog.at_level(logging.INFO, "exits"):
        hook.before_test_epoch(runner)
        for i in range(2):
            hook.after_test_iter(runner, i, {}, results(model))
        hook.after_test_epoch(runner, {})
    assert len(caplog.messages) == lines
    for line in caplog.messages:
        assert "exits of 8 images or windows: 100.0 % after stage 0" in line
        assert "GMACs of the backbone" in line


@pytest.mark.parametrize(("gate", "count"), [(None, 1), (FixedGate(-1), 0), (EntropyGate(1), 0)])
def test_no_gate_is_said_once(monkeypatch, gate, count):
    said = []
    monkeypatch.setattr("tvit_seg.models.backbones.base.print_log", lambda *args: said.append(args))
    model = plain(gate)
    model.train()
    model.backbone(torch.randn(1, 3, 32, 32))
    assert not said
    model.eval()
    for _ in range(2):
        results(model)
    assert len(said) == count
    assert all("has no gate" in text for text, *_ in said)


def test_without_labels():
    model = plain(FixedGate(0))
    metric = ThinkingMetric()
    metric.dataset_meta = dict(classes=tuple("abcde"))
    dicts = [sample.to_dict() for sample in results(model)]
    for sample in dicts:
        del sample["gt_sem_seg"]
    metric.process({}, dicts)
    found = metric.evaluate(4)
    assert found["thinking/stage0.share"] == 100
    assert not any("mIoU" in name for name in found)
