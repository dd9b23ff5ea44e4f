"""Metrics and sweeps of three processes are those of one, for any number of images."""

import gc
import json
import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers.builders import LINEAR, VIT, batch, lively
from helpers.processes import run_together
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from tvit_seg import EntropyGate
from tvit_seg.engine import ThinkingRunner, prepare_distributed
from tvit_seg.evaluation.sweep import sweep

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU"),
]

IMAGES = 7  # three processes cannot get the same number each
META = dict(classes=tuple("abcde"), palette=[[i] * 3 for i in range(5)])
BACKBONE = dict(VIT, thinking_stages=(1, 2, 4))
SEGMENTATION = dict(
    model=dict(
        type="ThinkingEncoderDecoder",
        data_preprocessor=dict(type="SegDataPreProcessor"),
        backbone=BACKBONE,
        decode_head=LINEAR,
        test_cfg=dict(mode="slide", crop_size=(24, 24), stride=(16, 16)),
    ),
    test_evaluator=[
        dict(type="IoUMetric"),
        dict(type="ThinkingMetric", difficulty_key="difficulty"),
    ],
)


@DATASETS.register_module()
class SevenImages(torch.utils.data.Dataset):
    metainfo = META

    def __init__(self):
        torch.manual_seed(3)
        self.images, self.data_samples = batch(IMAGES, (40, 32))
        self.images *= torch.linspace(0.1, 2, IMAGES).view(-1, 1, 1, 1)
        for i, sample in enumerate(self.data_samples):
            sample.set_metainfo(dict(difficulty=i / IMAGES))

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        return dict(inputs=self.images[index], data_samples=self.data_samples[index])


def evaluate(folder, launcher="none"):
    """Metrics and rows of a sweep."""
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(type="SevenImages"),
    )
    cfg = Config(
        dict(
            SEGMENTATION,
            default_scope="mmseg",
            work_dir=str(folder),
            launcher=launcher,
            log_level="WARNING",
            experiment_name=f"{launcher}-{Path(folder).name}",
            test_dataloader=loader,
            test_cfg=dict(),
            randomness=dict(seed=0),
        )
    )
    prepare_distributed(cfg)
    runner = ThinkingRunner.from_cfg(cfg)
    model = getattr(runner.model, "module", runner.model)
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    lively(model)
    inputs = SevenImages().images[..., :24, :24].float()
    with torch.no_grad():
        entropies = EntropyGate(1.0).entropy(model.backbone.forward_stages(inputs)[0])
    gate = EntropyGate(float(entropies.median()))  # images stop everywhere
    model.backbone.set_gate(gate, has_decode_head=True)
    metrics = runner.test()
    swept = sweep(model, runner.test_loop.dataloader, "difficulty")
    rows = [swept.row(t) for t in (0.0, gate.threshold, 0.9 * gate.threshold)] if swept else []
    for row in rows:
        del row["ms"], row["fps"]
    return dict(metrics=metrics, rows=rows)


def test_as_one_process(tmp_path):
    """The last process gets an image again, since seven are not divisible: it does not count."""
    run_together(3, __file__, tmp_path, cwd=tmp_path)
    theirs = json.loads((tmp_path / "found.json").read_text())
    alone = json.loads(json.dumps(evaluate(tmp_path / "alone"), default=float))
    assert theirs["metrics"] == pytest.approx(alone["metrics"], abs=1e-6, nan_ok=True)
    for row, their_row in zip(alone["rows"], theirs["rows"], strict=True):
        assert their_row == pytest.approx(row, abs=1e-6, nan_ok=True)


if __name__ == "__main__":
    init_default_scope("mmseg")
    found = evaluate(sys.argv[1], "pytorch")
    if os.environ["RANK"] == "0":
        Path(sys.argv[1], "found.json").write_text(json.dumps(found, default=float))
    gc.collect()  # wrappers of the models go before the communication
    dist.destroy_process_group()
