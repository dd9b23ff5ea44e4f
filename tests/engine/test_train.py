from types import SimpleNamespace

import pytest
from mmengine.config import Config

from tvit_seg.engine import train
from tvit_seg.errors import ConfigError


@pytest.fixture
def cfg(tmp_path):
    return Config(
        dict(
            model={}, train_dataloader=dict(dataset=dict(type=list)), train_cfg=dict(by_epoch=True)
        )
        | dict(optim_wrapper=dict(optimizer=dict(type="SGD")), work_dir=str(tmp_path))
    )


@pytest.fixture
def steps(monkeypatch, cfg):
    """What happens in a training, in order; a step may be made to fail."""
    done, failing = [], {}

    def step(name):
        def take(*args):
            done.append(name)
            if name in failing:
                raise failing[name]
            return runner

        return take

    runner = SimpleNamespace(prepare_weights=step("weights"), train=step("train"))
    monkeypatch.setattr(train, "build_runner", step("build"))
    monkeypatch.setattr(train, "check_config_data", step("data"))
    return SimpleNamespace(done=done, failing=failing, runner=runner)


def test_order(steps, cfg):
    assert train.train(cfg) is steps.runner
    assert steps.done == ["build", "weights", "data", "train"]
    steps.done.clear()
    train.train(cfg, check_data=False)
    assert steps.done == ["build", "weights", "train"]


def test_what_training_needs(steps, cfg):
    cfg.model = cfg.train_cfg = None
    with pytest.raises(SystemExit, match=r"^error: the config has no model, no train_cfg$"):
        train.train(cfg)
    assert not steps.done


@pytest.mark.parametrize("step", ["build", "train"])
def test_one_line_for_what_is_wrong_in_a_config(step, steps, cfg):
    steps.failing[step] = ConfigError("depth=0 must be more")
    with pytest.raises(SystemExit, match=r"^error: depth=0 must be more$"):
        train.train(cfg)
    assert steps.done[-1] == step


def test_a_bug_in_training_keeps_its_traceback(steps, cfg):
    steps.failing["train"] = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        train.train(cfg)
