"""Shipped configs train in two processes, where an unused parameter would be an error."""

import gc
import sys

import pytest
import torch
import torch.distributed as dist
from helpers.builders import class_samples, samples
from helpers.processes import run_together
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from test_configs import CONFIGS, DISTILLED, LEAVES, LONGER, PRETRAINING

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU"),
]

ONE_OF_EACH_KIND = [
    "quickstart/thinkingvit_scenes-96x96.py",
    "quickstart/thinkingvit-pruned_scenes-96x96.py",
    "quickstart/thinkingvit-tokens_scenes-96x96.py",
    "upernet/upernet_thinkingswin-nano_1xb32-700_scenes-96x96.py",
    "segmenter/segmenter_thinkingvit-3h-6h_mask_8xb1-160k_ade20k-512x512.py",
    "pretrain/thinkingvit-mini-1h-3h_1xb128-10e_cifar10-32x32.py",
]


def train(path):
    """Two steps: an unused parameter of the first is an error of the second."""
    cfg = Config.fromfile(path)
    model = MODELS.build(cfg.model)
    wrapped = MMDistributedDataParallel(
        model,
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    ).train()
    optimizer = build_optim_wrapper(wrapped, cfg.optim_wrapper)
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    if path in map(str, PRETRAINING):
        data_samples = class_samples(torch.randint(0, cfg.num_classes, (2,)).tolist())
    else:
        images = [image.float() for image in images]
        data_samples = samples(torch.randint(0, cfg.num_classes, (2, 64, 64)))
        if "size" in cfg.model.data_preprocessor:
            model.data_preprocessor.size = (64, 64)
    for _ in range(2):
        wrapped.train_step(dict(inputs=images, data_samples=data_samples), optimizer)
    mine = torch.stack([p.detach().double().sum() for p in model.parameters()])
    first = mine.clone()
    dist.broadcast(first, 0)
    assert torch.equal(first, mine), "the processes' weights differ"


def test_one_of_each_kind(tmp_path):
    paths = [CONFIGS / name for name in ONE_OF_EACH_KIND]
    printed = run_together(2, __file__, *paths, cwd=tmp_path)
    assert printed.count("trained together") == len(paths)


@pytest.mark.slow
def test_all(tmp_path):
    # the longer ones differ in the schedule only, distilled ones need a teacher's package
    paths = [path for path in LEAVES if path not in LONGER + DISTILLED]
    printed = run_together(2, __file__, *paths, cwd=tmp_path, timeout=3600)
    assert printed.count("trained together") == len(paths)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    init_default_scope("mmseg")
    for name in sys.argv[1:]:
        torch.manual_seed(dist.get_rank())  # weights are the first process's, data its own
        train(name)
        gc.collect()
        if dist.get_rank() == 0:
            print("trained together", name, flush=True)
    dist.destroy_process_group()
