"""Metrics and sweeps of two and three processes are those of one, for any number of images."""

import gc
import json
import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers.builders import LINEAR, VIT, batch, class_samples, lively
from helpers.processes import run_together
from mmengine.config import Config
from mmengine.dist import all_gather_object, get_world_size
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from tvit_seg import EntropyGate
from tvit_seg.engine import ThinkingRunner, prepare_distributed
from tvit_seg.evaluation.sweep import sweep

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")

IMAGES = 7  # neither two nor three processes get the same number each
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
CLASSIFICATION = dict(
    model=dict(
        type="ThinkingClassifier",
        backbone=BACKBONE,
        data_preprocessor=dict(),
        test_cfg=dict(per_stage=True),
    ),
    test_evaluator=dict(type="ThinkingAccuracy", topk=(1, 2)),
)


@DATASETS.register_module()
class SevenImages(torch.utils.data.Dataset):
    metainfo = META

    def __init__(self, classify):
        torch.manual_seed(3)
        self.images, self.data_samples = batch(IMAGES, (40, 32))
        self.images *= torch.linspace(0.1, 2, IMAGES).view(-1, 1, 1, 1)
        if classify:
            self.images = (60 * self.images + 128).clamp(0, 255).byte()
            self.data_samples = class_samples([i % 5 for i in range(IMAGES)])
        for i, sample in enumerate(self.data_samples):
            sample.set_metainfo(dict(difficulty=i / IMAGES))

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        return dict(inputs=self.images[index], data_samples=self.data_samples[index])


def evaluate(task, folder, launcher="none"):
    """Metrics, rows of a sweep, and the exit stages that each process saw."""
    given = dict(segmentation=SEGMENTATION, classification=CLASSIFICATION)[task]
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(type="SevenImages", classify=task == "classification"),
    )
    cfg = Config(
        dict(
            given,
            default_scope="mmseg",
            work_dir=str(folder),
            launcher=launcher,
            log_level="WARNING",
            experiment_name=f"{task}-{launcher}-{Path(folder).name}",
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
    gate = EntropyGate(threshold_of(model, task))
    model.backbone.set_gate(gate, has_decode_head=True)
    seen = []
    predict = model.predict

    def noting(*args):
        results = predict(*args)
        seen.extend(result.exit_stage.tolist() for result in results)
        return results

    model.predict = noting
    metrics = runner.test()
    swept = sweep(model, runner.test_loop.dataloader, "difficulty")
    rows = [swept.row(t) for t in (0.0, gate.threshold, 0.9 * gate.threshold)] if swept else []
    for row in rows:
        del row["ms"], row["fps"]
    exits = all_gather_object(seen) if get_world_size() > 1 else [seen]
    return dict(metrics=metrics, rows=rows, exits=exits)


def threshold_of(model, task):
    """The median entropy of the first stage, so that images stop everywhere."""
    data = SevenImages(task == "classification")
    inputs = data.images[..., :24, :24].float()
    return float(EntropyGate(1.0).entropy(model.backbone.forward_stages(inputs)[0]).median())


@pytest.fixture(scope="module", params=[2, 3])
def together(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    run_together(request.param, __file__, folder, cwd=folder)
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_as_one_process(task, together, tmp_path):
    alone = json.loads(json.dumps(evaluate(task, tmp_path), default=float))
    theirs = together[task]
    assert theirs["metrics"] == pytest.approx(alone["metrics"], abs=1e-6, nan_ok=True)
    for row, their_row in zip(alone["rows"], theirs["rows"], strict=True):
        assert their_row == pytest.approx(row, abs=1e-6, nan_ok=True)
    # the last process sees an image again, since seven are not divisible: it must not count
    assert sum(map(len, theirs["exits"])) > IMAGES
    assert len({str(exits) for exits in theirs["exits"]}) == len(theirs["exits"])
    assert len({str(exits) for exits in alone["exits"][0]}) > 1


if __name__ == "__main__":
    init_default_scope("mmseg")
    found = {}
    for task in ("segmentation", "classification"):
        found[task] = evaluate(task, Path(sys.argv[1]) / task, "pytorch")
    if os.environ["RANK"] == "0":
        Path(sys.argv[1], "found.json").write_text(json.dumps(found, default=float))
    gc.collect()  # what wrapped the models goes before the communication
    dist.destroy_process_group()
