from types import SimpleNamespace

import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler
from test_runner import Numbers, Score, make_runner

from tvit_seg.engine.endless import require_end
from tvit_seg.errors import ConfigError

ENDLESS = dict(dataset=Numbers(), batch_size=2, sampler=dict(type="InfiniteSampler"))


def test_samplers():
    ends = SimpleNamespace(dataloader=SimpleNamespace(sampler=DefaultSampler(Numbers())))
    assert require_end(ends, "val") is ends
    endless = SimpleNamespace(dataloader=SimpleNamespace(sampler=InfiniteSampler(Numbers())))
    with pytest.raises(ConfigError, match="val_cfg has a SimpleNamespace, which needs an end"):
        require_end(endless, "val")


def test_the_runner_asks(tmp_path):
    epochs = dict(type="EpochBasedTrainLoop", max_epochs=1)
    with pytest.raises(ConfigError, match="train_cfg has a EpochBasedTrainLoop"):
        make_runner(tmp_path, train_cfg=epochs).train()
    with pytest.raises(ConfigError, match="val_dataloader an InfiniteSampler: use DefaultSampler"):
        make_runner(tmp_path, val_dataloader=ENDLESS).train()
    testing = dict(test_dataloader=ENDLESS, test_cfg={}, test_evaluator=[Score()])
    with pytest.raises(ConfigError, match="test_dataloader an InfiniteSampler"):
        make_runner(tmp_path, **testing).test()


def test_a_loop_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"val_cfg=dict\(x=1\) cannot be built: .*argument 'x'"):
        make_runner(tmp_path, val_cfg=dict(x=1), cfg=dict(val_cfg=dict(x=1))).train()
