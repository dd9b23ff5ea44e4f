"""A sweep is not lost: its results are written as they come, and a second call goes on."""

import numpy as np
import pytest
import torch
from helpers.builders import LINEAR, SLIDE
from test_sweep import WHOLE, Loader, build

from tvit_seg.evaluation.record import PassRecord
from tvit_seg.evaluation.sweep import sweep

FACTS = dict(model=dict(type="X", sizes=(1, 2)), data="d")


class Images(Loader):
    """The same images each time."""

    def __init__(self, *args):
        torch.manual_seed(0)
        super().__init__(*args)


class Stops(Images):
    """A loader that fails after two batches."""

    def __iter__(self):
        yield from list(super().__iter__())[:2]
        raise OSError("the disk is gone")


@pytest.mark.parametrize("test_cfg", [WHOLE, SLIDE], ids=["whole", "slide"])
def test_a_pass_goes_on(tmp_path, monkeypatch, test_cfg):
    model = build(dict(type="EntropyGate"), test_cfg, LINEAR)
    record = PassRecord(tmp_path, FACTS)
    with pytest.raises(OSError, match="disk"):
        sweep(model, Stops(5, (50, 61)), "difficulty", record)
    whole = sweep(model, Images(5, (50, 61)), "difficulty")
    runs = []
    embed = model.backbone.embed
    monkeypatch.setattr(model.backbone, "embed", lambda *a: runs.append(1) or embed(*a))
    found = sweep(model, Images(5, (50, 61)), "difficulty", record)
    calls = len(runs)
    runs.clear()
    sweep(model, Images(5, (50, 61)))
    assert calls == len(runs) * 3 // 5
    for threshold in whole.thresholds():
        expected, row = whole.row(threshold), found.row(threshold)
        assert row.keys() == expected.keys()
        for name in row.keys() - {"ms", "fps"}:
            assert row[name] == expected[name] or np.isnan(row[name])
    record.remove()
    assert not list(tmp_path.iterdir())


def test_other_facts_begin_anew(tmp_path):
    PassRecord(tmp_path, FACTS).start([dict(a=1)])
    assert PassRecord(tmp_path, FACTS).read() == [dict(a=1)]
    assert PassRecord(tmp_path, dict(FACTS, data="e")).read() == []


def test_an_unfinished_line_is_dropped(tmp_path):
    record = PassRecord(tmp_path, FACTS)
    record.start([dict(a=1), dict(a=2)])
    record.path.write_bytes(record.path.read_bytes()[:-3])
    assert record.read() == [dict(a=1)]


class Unlabelled(Images):
    """Images as of a test server."""

    def __init__(self, *args):
        super().__init__(*args)
        for batch in self:
            del batch["data_samples"][0].gt_sem_seg


def test_shares_and_costs_need_no_labels():
    model = build(dict(type="EntropyGate"), SLIDE, LINEAR)
    labelled, found = (sweep(model, kind(5, (50, 61))) for kind in (Images, Unlabelled))
    assert labelled.labelled and not found.labelled
    for threshold in found.thresholds():
        row, expected = found.row(threshold), labelled.row(threshold)
        assert not {"mIoU", "aAcc", "mAcc"} & row.keys()
        for name in ("stage0.share", "stage1.share", "gmacs"):
            assert row[name] == expected[name]


def test_a_difficulty_that_samples_lack_is_left_out():
    found = sweep(build(dict(type="EntropyGate"), WHOLE, LINEAR), Loader(3, (32, 32)), "hardness")
    assert not any(name.startswith("thinks") for name in found.row(0.0))


def test_short_thresholds_give_the_same_exits():
    found = sweep(build(dict(type="EntropyGate"), SLIDE, LINEAR), Images(5, (50, 61)))
    for threshold in found.thresholds(9):
        short = found.shorten(threshold)
        assert len(repr(short)) <= len(repr(threshold))
        rows = [found.row(t) for t in (short, threshold)]
        assert {**rows[0], "threshold": 0} == {**rows[1], "threshold": 0}
    entropies = np.unique(np.concatenate([i.predictions.entropy[:, 0] for i in found.images]))
    close = np.float32(entropies[3]), np.nextafter(np.float32(entropies[3]), np.float32(9))
    assert found.shorten(float(close[0])) < found.shorten(float(close[1]))
    assert torch.tensor(close[0]) >= found.shorten(float(close[0]))
