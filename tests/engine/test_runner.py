import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers.tiny import Count, Numbers, Tiny
from mmengine.evaluator import Evaluator
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from torch import nn

from tvit_seg.engine import ThinkingRunner
from tvit_seg.engine import runner as runner_module
from tvit_seg.engine.hooks import checkpoint as checkpoint_hook
from tvit_seg.errors import CheckpointError
from tvit_seg.weights.io import read_checkpoint


class Wide(Tiny):
    """With a hidden layer."""

    def __init__(self, width=8):
        super().__init__()
        layers = [nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 1)]
        self.layer, self.unused = nn.Sequential(*layers), None


class Malice:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class AddsAnObject(Hook):
    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint["meta"]["mine"] = Numbers()


def make_runner(work_dir, max_iters=4, width=8, **kwargs):
    loader = {
        "dataset": Numbers(),
        "batch_size": 2,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
    }
    saving = {"type": "CheckpointHook", "interval": 2, "by_epoch": False, "save_best": "test/mIoU"}
    settings = dict(
        model=Wide(width),
        work_dir=str(work_dir),
        train_dataloader={**loader, "sampler": {"type": "InfiniteSampler", "shuffle": False}},
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": max_iters, "val_interval": 2},
        val_dataloader=loader,
        val_cfg={},
        val_evaluator=Evaluator([Count()]),
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.01}},
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 0.1, "end": 3, "by_epoch": False},
            {"type": "PolyLR", "eta_min": 0.0, "power": 0.9, "end": 8, "by_epoch": False},
        ],
        default_hooks={"checkpoint": saving},
        experiment_name=f"runner_{len(os.listdir(work_dir))}",
        log_level="WARNING",
    )
    return ThinkingRunner(**{**settings, **kwargs})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("trained")
    runner = make_runner(work_dir)
    runner.train()
    return work_dir, runner


def test_files_are_plain_and_whole(trained):
    work_dir, runner = trained
    assert not list(work_dir.glob("*.tmp"))
    assert (work_dir / "last_checkpoint").read_text() == str(work_dir / "iter_4.pth")
    checkpoint = torch.load(work_dir / "iter_4.pth", weights_only=True)
    assert checkpoint["meta"]["iter"] == 4
    assert checkpoint["meta"]["dataset_meta"] == Numbers.metainfo
    assert checkpoint["message_hub"]["runtime_info"]["best_score"] == 0.5
    torch.testing.assert_close(checkpoint["state_dict"], runner.model.state_dict())
    torch.load(next(work_dir.glob("best_test_mIoU_*.pth")), weights_only=True)


def test_dumps_go_to_the_log_file(tmp_path, capsys):
    cfg = dict(model=dict(type="Tiny"))
    make_runner(tmp_path, log_level="INFO", experiment_name="dumps", cfg=cfg)
    (log,) = tmp_path.glob("*/*.log")
    shown = capsys.readouterr()
    for text in ("System environment", "Config:", "Hooks will be executed"):
        assert text in log.read_text()
        assert text not in shown.out + shown.err


def test_resume_is_the_same_as_not_stopping(tmp_path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    torch.manual_seed(0)
    whole = make_runner(tmp_path / "whole", max_iters=8)
    start = {name: value.clone() for name, value in whole.model.state_dict().items()}
    whole.train()

    first = make_runner(tmp_path / "parts", max_iters=4)
    first.model.load_state_dict(start)
    first.train()
    second = make_runner(tmp_path / "parts", max_iters=8, resume=True)
    second.train()
    torch.testing.assert_close(second.model.state_dict(), whole.model.state_dict())


@pytest.mark.parametrize("load_from", [None, "iter_4.pth"])
def test_nothing_to_resume_is_in_the_log(trained, tmp_path, load_from):
    """A mistyped work folder; the message names the trained one next to it."""
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "last_checkpoint").touch()
    work_dir = tmp_path / "scenss"
    work_dir.mkdir()
    start = load_from and str(trained[0] / load_from)
    name = f"nothing_{load_from}"
    runner = make_runner(work_dir, load_from=start, resume="auto", experiment_name=name)
    runner.load_or_resume()
    (log,) = work_dir.glob("*/*.log")
    assert "WARNING - nothing to resume in" in log.read_text()
    assert "did you mean 'scenes'" in log.read_text()
    assert runner.iter == 0
    assert runner._has_loaded == bool(start)


def test_auto_prefers_the_latest(trained, tmp_path):
    shutil.copy(trained[0] / "iter_4.pth", tmp_path)
    runner = make_runner(tmp_path, load_from="pretrained.pth", resume="auto", max_iters=8)
    runner.load_or_resume()
    assert runner.iter == 4


def test_resume_needs_training_state(trained, tmp_path):
    work_dir, runner = trained
    weights = runner.model.state_dict()
    torch.save({"state_dict": weights}, tmp_path / "weights.pth")
    for path in (tmp_path / "weights.pth", next(work_dir.glob("best_test_mIoU_*.pth"))):
        with pytest.raises(CheckpointError, match=r"holds weights only \(no .*; use load_from"):
            make_runner(tmp_path, load_from=str(path), resume=True).train()
        with pytest.raises(CheckpointError, match="use load_from"):
            make_runner(tmp_path).resume(str(path))


def test_loads_bare_weights(trained, tmp_path):
    weights = trained[1].model.state_dict()
    torch.save({f"module.{name}": value for name, value in weights.items()}, tmp_path / "w.pth")
    runner = make_runner(tmp_path)
    runner.load_checkpoint(str(tmp_path / "w.pth"))
    torch.testing.assert_close(runner.model.state_dict(), weights)


@pytest.mark.parametrize("named", [True, False])
def test_weights_are_prepared_once(trained, tmp_path, monkeypatch, named):
    source = trained[0] / "iter_4.pth"
    if named:
        runner = make_runner(tmp_path, max_iters=6, load_from=str(source), resume=True)
    else:
        (tmp_path / "last_checkpoint").write_text(str(source))
        runner = make_runner(tmp_path, max_iters=6, resume=True)
    calls = []
    monkeypatch.setattr(Wide, "init_weights", lambda self: calls.append("init"))
    for module in (runner_module, checkpoint_hook):
        monkeypatch.setattr(
            module, "read_checkpoint", lambda path: calls.append("read") or read_checkpoint(path)
        )
    runner.prepare_weights()
    assert calls == ["init", "read"]
    assert runner.iter == 0
    runner.train()
    assert calls == ["init", "read"]
    assert runner.iter == 6


def test_another_architecture_is_refused(trained, tmp_path):
    runner = make_runner(tmp_path, width=16)
    with pytest.raises(CheckpointError, match=r"of another model: .* of another shape: layer\.0"):
        runner.load_checkpoint(str(trained[0] / "iter_4.pth"))


@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_file_is_not_executed(trained, tmp_path, zipped):
    path, marker = tmp_path / "evil.pth", tmp_path / "marker"
    checkpoint = torch.load(trained[0] / "iter_4.pth", weights_only=True)
    checkpoint["message_hub"]["log_scalars"] = Malice(marker)
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    for resume in (False, True):
        runner = make_runner(tmp_path, load_from=str(path), resume=resume)
        with pytest.raises(CheckpointError, match="more than weights"):
            runner.load_or_resume()
    assert not marker.exists()


def test_config_text_in_a_checkpoint_is_not_executed(trained, tmp_path):
    path, marker = tmp_path / "evil.pth", tmp_path / "marker"
    checkpoint = torch.load(trained[0] / "iter_4.pth", weights_only=True)
    checkpoint["meta"]["config"] = f"open({str(marker)!r}, 'w')"
    torch.save(checkpoint, path)
    make_runner(tmp_path, max_iters=6, load_from=str(path), resume=True).load_or_resume()
    assert not marker.exists()


def test_old_file_survives_a_full_disk(trained, tmp_path, monkeypatch):
    runner = make_runner(tmp_path, max_iters=2)
    runner.train()
    before = (tmp_path / "iter_2.pth").read_bytes()
    content = sorted(os.listdir(tmp_path))

    def put(self, obj, path):
        Path(path).write_bytes(obj[: len(obj) // 2])
        raise OSError(28, "No space left")

    monkeypatch.setattr(LocalBackend, "put", put)
    with pytest.raises(OSError, match="No space left"):
        runner.save_checkpoint(str(tmp_path), "iter_2.pth", by_epoch=False)
    assert (tmp_path / "iter_2.pth").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == content


def test_objects_of_hooks_are_named(tmp_path):
    runner = make_runner(tmp_path, max_iters=2, custom_hooks=[AddsAnObject()])
    with pytest.raises(TypeError, match=r"checkpoint\['meta'\]\['mine'\] must be .*Numbers"):
        runner.train()


def test_functions_of_schedulers_are_left_out(tmp_path):
    schedule = [{"type": "OneCycleLR", "eta_max": 0.1, "total_steps": 9, "by_epoch": False}]
    make_runner(tmp_path, param_scheduler=schedule).train()
    (state,) = torch.load(tmp_path / "iter_4.pth", weights_only=True)["param_schedulers"]
    assert "last_step" in state
    assert "anneal_func" not in state


def test_moving_averages_survive_a_resume(tmp_path):
    hooks = [{"type": "EMAHook", "momentum": 0.5}]
    first = make_runner(tmp_path, custom_hooks=hooks)
    first.train()
    second = make_runner(tmp_path, custom_hooks=hooks)
    # Called directly, mmengine's hook would take the averages for the raw weights.
    second._train_loop = second.build_train_loop(second._train_loop)
    second.optim_wrapper = second.build_optim_wrapper(second.optim_wrapper)
    second.call_hook("before_run")
    second.resume(str(tmp_path / "iter_4.pth"))
    torch.testing.assert_close(second.model.state_dict(), first.model.state_dict())


def learning_rate(tmp_path, batch_size=2, counts=1, world=1, **auto_scale_lr):
    runner = make_runner(tmp_path, auto_scale_lr=auto_scale_lr or None)
    runner._train_dataloader = dict(runner._train_dataloader, batch_size=batch_size)
    runner._world_size = world
    cfg = dict(optimizer=dict(type="SGD", lr=5e-4), accumulative_counts=counts)
    wrapper = runner.build_optim_wrapper(cfg)
    runner.scale_lr(wrapper, runner.auto_scale_lr)
    return wrapper.optimizer.param_groups[0]["lr"]


def test_learning_rate_counts_the_images_of_a_step(tmp_path):
    scale = dict(enable=True, base_batch_size=512)
    assert learning_rate(tmp_path, 512, **scale) == pytest.approx(5e-4)
    assert learning_rate(tmp_path, 128, world=8, **scale) == pytest.approx(1e-3)
    assert learning_rate(tmp_path, 64, world=4, counts=4, **scale) == pytest.approx(1e-3)
    assert learning_rate(tmp_path, 64) == 5e-4
    assert learning_rate(tmp_path, 64, enable=False, base_batch_size=512) == 5e-4


def test_testing_needs_the_same_shapes(trained, tmp_path):
    """Training may start from another head, a test would measure a random one."""
    checkpoint = torch.load(trained[0] / "iter_4.pth", weights_only=True)
    checkpoint["state_dict"]["layer.2.weight"] = torch.zeros(3, 8)
    torch.save(checkpoint, tmp_path / "other.pth")
    loader = {"dataset": Numbers(), "batch_size": 2, "sampler": {"type": "DefaultSampler"}}
    test = dict(test_dataloader=loader, test_cfg={}, test_evaluator=Evaluator([Count()]))
    runner = make_runner(tmp_path, load_from=str(tmp_path / "other.pth"), **test)
    runner.load_or_resume()
    runner = make_runner(tmp_path, load_from=str(tmp_path / "other.pth"), **test)
    with pytest.raises(CheckpointError, match=r"number of classes.*: layer\.2\.weight \(3, 8\)"):
        runner.test()
