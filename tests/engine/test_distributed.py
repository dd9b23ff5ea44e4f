import pytest
import torch
from helpers.processes import run_together
from mmengine.config import Config

from tvit_seg.engine import prepare_distributed, run_on_first_process

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")

WORKER = """
import sys
import torch
import torch.distributed as dist
from helpers.tiny import Count, Numbers, Tiny
from mmengine.config import Config
from mmengine.evaluator import Evaluator

from tvit_seg.engine import ThinkingRunner, close_distributed, prepare_distributed

work_dir = sys.argv[1]
torch.manual_seed(0)


def loader(sampler):
    return dict(dataset=Numbers(), batch_size=2, sampler=dict(type=sampler, shuffle=False))


def make(max_iters, resume):
    cfg = Config(dict(
        work_dir=work_dir, launcher="pytorch", log_level="WARNING", resume=resume,
        experiment_name=str(max_iters),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=max_iters), test_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.001)),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=2, by_epoch=False)),
    ))
    arguments = cfg.to_dict()
    cfg.find_unused_parameters = True
    prepare_distributed(cfg)
    return ThinkingRunner(
        model=Tiny(), train_dataloader=loader("InfiniteSampler"), cfg=cfg, **arguments,
        test_dataloader=loader("DefaultSampler"), test_evaluator=Evaluator([Count()]),
    )


make(4, resume=False).train()
runner = make(6, resume=True)
assert dist.get_backend() == "gloo" and dist.get_world_size() == 2
runner.train()
weights = [None, None]
dist.all_gather_object(weights, runner.model.module.layer.weight.tolist())
assert weights[0] == weights[1]
metrics = runner.test()
if dist.get_rank() == 0:
    print("ITER", runner.iter, "COUNT", metrics["test/count"])
close_distributed(runner)
"""


LONG_WORK = """
import os, sys, time
from pathlib import Path

import torch.distributed as dist
from mmengine.config import Config

from tvit_seg.engine import prepare_distributed, run_on_first_process

rank, folder = os.environ["RANK"], Path(sys.argv[1])
folder.mkdir(exist_ok=True)
(folder / rank).touch()
while len(list(folder.iterdir())) < 2:  # so that starting up does not count
    time.sleep(0.01)
timeout = 8
cfg = Config(dict(launcher="pytorch", env_cfg=dict(dist_cfg=dict(timeout=timeout))))
prepare_distributed(cfg)
run_on_first_process(lambda: (time.sleep(timeout + 2), print("WORKED", rank, flush=True)))
dist.barrier()
print("TOGETHER", flush=True)


def fail():
    raise ValueError("bad data")


try:
    run_on_first_process(fail)
except (ValueError, SystemExit) as error:
    (folder / f"{rank}.txt").write_text(repr(error))
dist.destroy_process_group()
"""


def launch(tmp_path, code=WORKER):
    script = tmp_path / "worker.py"
    script.write_text(code)
    return run_together(2, script, tmp_path / "work", cwd=tmp_path)


@pytest.mark.integration
def test_two_processes_train_resume_and_test(tmp_path):
    assert "ITER 6 COUNT 8" in launch(tmp_path)
    state = torch.load(tmp_path / "work" / "iter_6.pth", weights_only=True)
    assert state["meta"]["iter"] == 6
    assert not any(name.startswith("module.") for name in state["state_dict"])


@pytest.mark.integration
def test_work_on_the_first_process_may_outlast_the_timeout(tmp_path):
    said = launch(tmp_path, LONG_WORK)
    assert "WORKED 0" in said and "WORKED 1" not in said
    assert said.count("TOGETHER") == 2
    outcome = [(tmp_path / "work" / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert outcome == ["ValueError('bad data')", "SystemExit(1)"]


def test_a_single_process_is_the_first():
    done = []
    run_on_first_process(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        run_on_first_process(lambda: 1 / 0)


def test_nothing_to_do_without_the_launcher():
    cfg = Config({"launcher": "none"})
    prepare_distributed(cfg)
    assert "model_wrapper_cfg" not in cfg


def test_needs_torchrun(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match=r"needs torchrun .*WORLD_SIZE.* not set"):
        prepare_distributed(Config({"launcher": "pytorch"}))


def test_keeps_what_the_config_says(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    wrapper = {"broadcast_buffers": True, "device_ids": [0]}
    environment = {"cudnn_benchmark": True, "dist_cfg": {"backend": "nccl", "timeout": 60}}
    cfg = Config({"launcher": "pytorch", "model_wrapper_cfg": wrapper, "env_cfg": environment})
    prepare_distributed(cfg)
    assert cfg.model_wrapper_cfg.to_dict() == {
        "type": "MMDistributedDataParallel",
        "broadcast_buffers": True,
        "find_unused_parameters": False,
        "device_ids": None,
    }
    assert cfg.env_cfg.dist_cfg.to_dict() == {"backend": "gloo", "timeout": 60}
    assert cfg.env_cfg.cudnn_benchmark
