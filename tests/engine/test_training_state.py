"""Training states that nothing can have come to are refused by name."""

import logging

import pytest
import torch
from helpers.classification import config, image_folder

from tvit_seg.engine import ThinkingRunner
from tvit_seg.errors import CheckpointError

LOOPS = {
    "epochs": dict(train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=2, val_interval=9)),
    "iterations": {
        "train_cfg": dict(type="IterBasedTrainLoop", max_iters=2, val_interval=9),
        "train_dataloader.sampler": dict(type="InfiniteSampler", shuffle=True),
        "default_hooks.checkpoint.by_epoch": False,
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """Of each loop, the checkpoint of half a training, and its path."""
    made = {}
    for loop, changes in LOOPS.items():
        work_dir = tmp_path_factory.mktemp("trained") / loop
        work_dir.mkdir()
        ThinkingRunner.from_cfg(config(root, work_dir, **changes)).train()
        made[loop] = next(work_dir.glob("*_1.pth"))
    return made


def resume(root, tmp_path, path, loop):
    (tmp_path / "w").mkdir(exist_ok=True)
    cfg = config(root, tmp_path / "w", resume=True, load_from=str(path), **LOOPS[loop])
    runner = ThinkingRunner.from_cfg(cfg)
    runner.train()
    return runner


def crafted(trained, tmp_path, change, loop="iterations"):
    checkpoint = torch.load(trained[loop], weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "crafted.pth")
    return tmp_path / "crafted.pth"


@pytest.mark.parametrize("loop", LOOPS)
def test_beyond_the_end(root, trained, tmp_path, loop):
    unit, most = ("epoch", 2) if loop == "epochs" else ("iter", 2)

    def at(number):
        return crafted(trained, tmp_path, lambda c: c["meta"].update({unit: number}), loop)

    message = rf"crafted\.pth: meta\.{unit}=3 is beyond the end .*train_cfg\.max_{unit}s={most}$"
    with pytest.raises(CheckpointError, match=message):
        resume(root, tmp_path, at(3), loop)
    for senseless in (10**12, 10**40, True, -1):
        message = rf"crafted\.pth: meta\.{unit}={senseless} is no step"
        with pytest.raises(CheckpointError, match=message):
            resume(root, tmp_path, at(senseless), loop)
    with pytest.raises(CheckpointError, match=r"\(a number of more than 60 digits\) is no step"):
        resume(root, tmp_path, at(10**500), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_at_the_end(root, trained, tmp_path, loop):
    path = trained[loop].with_name(trained[loop].name.replace("_1", "_2"))
    texts = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    (tmp_path / "w").mkdir()
    cfg = config(root, tmp_path / "w", resume=True, load_from=str(path), **LOOPS[loop])
    cfg.log_level = "INFO"
    runner = ThinkingRunner.from_cfg(cfg)
    runner.logger.addHandler(handler)
    runner.train()
    (text,) = [text for text in texts if "finished" in text]
    unit = "epoch" if loop == "epochs" else "iter"
    assert text == f"{path} is of a training that is finished: {unit} 2 is the last"


@pytest.mark.parametrize(
    "option",
    [dict(lr=value) for value in (-1.0, "a", 1e300, 10**400, float("nan"), None)]
    + [dict(betas=5), dict(betas=(0.9,)), dict(eps=[1]), dict(weight_decay=float("inf"))],
    ids=lambda option: next(iter(option)),
)
def test_options_of_the_optimizer(root, trained, tmp_path, option):
    path = crafted(trained, tmp_path, lambda c: c["optimizer"]["param_groups"][0].update(option))
    message = rf"crafted\.pth: optimizer\.param_groups\[0\]\.{next(iter(option))}=.* makes no sense"
    with pytest.raises(CheckpointError, match=message):
        resume(root, tmp_path, path, "iterations")


def test_shapes_of_the_optimizers_state(root, trained, tmp_path):
    def change(checkpoint):
        checkpoint["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)

    path = crafted(trained, tmp_path, change)
    message = r"crafted\.pth: optimizer\.state: exp_avg is of shape \(3,\), its parameter of "
    with pytest.raises(CheckpointError, match=message):
        resume(root, tmp_path, path, "iterations")


@pytest.mark.parametrize(
    "gradients", [5, {"backbone.head.bias": torch.zeros(7)}, {"x": torch.zeros(1)}], ids=str
)
def test_gradients_of_another_model(root, trained, tmp_path, gradients):
    path = crafted(trained, tmp_path, lambda c: c.update(accumulated_gradients=gradients))
    with pytest.raises(CheckpointError, match=r"crafted\.pth: its training state does not fit"):
        resume(root, tmp_path, path, "iterations")


def test_what_makes_sense_goes_on(root, trained, tmp_path):
    for loop, path in trained.items():
        (tmp_path / loop).mkdir()
        runner = resume(root, tmp_path / loop, path, loop)
        assert 2 in (runner.iter, runner.epoch)
