"""Every shipped config builds, trains a step and tests."""

from pathlib import Path

import pytest
import torch
from builders import samples
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.runner import Runner
from mmseg.registry import MODELS

from tvit_seg import ThinkingEncoderDecoder, stage_macs

CONFIGS = Path(__file__).parents[1] / "configs"
LEAVES = sorted(
    path for path in CONFIGS.rglob("*.py") if "_base_" not in path.relative_to(CONFIGS).parts
)


def ids(path):
    return path.stem


@pytest.mark.parametrize("path", LEAVES, ids=ids)
def test_config(path, tmp_path):
    cfg = Config.fromfile(path)
    cfg.work_dir, cfg.launcher, cfg.log_level = str(tmp_path), "none", "ERROR"
    cfg.experiment_name = f"{path.stem}-{tmp_path.name}"
    runner = Runner.from_cfg(cfg)
    model = runner.model
    assert isinstance(model, ThinkingEncoderDecoder)
    runner.optim_wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    runner.build_evaluator(cfg.val_evaluator)
    for pipeline in (cfg.train_pipeline, cfg.test_pipeline, cfg.tta_pipeline):
        Compose(pipeline)

    size = (64, 64)
    labels = torch.randint(0, cfg.num_classes, (2, *size))
    model.train()
    loss, _ = model.parse_losses(model.loss(torch.randn(2, 3, *size), samples(labels)))
    loss.backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not unused
    model.eval()
    with torch.no_grad():
        result = model.predict(torch.randn(1, 3, *size))[0]
    assert result.seg_logits.data.shape == (cfg.num_classes, *size)
    costs = stage_macs(model, size)
    assert costs == sorted(costs)


def test_published_size():
    path = CONFIGS / "segmenter/segmenter_thinkingvit-3h-6h_linear_8xb1-160k_ade20k-512x512.py"
    cfg = Config.fromfile(path)
    assert cfg.model.backbone.img_size == (512, 512)
    assert cfg.model.backbone.embed_dims == cfg.model.decode_head.in_channels == 384
    assert cfg.model.test_cfg.crop_size == (512, 512)
    assert cfg.model.backbone.num_classes == cfg.model.decode_head.num_classes == 150


def test_published_swin_size():
    path = CONFIGS / "upernet/upernet_thinkingswin-small_8xb2-160k_ade20k-512x512.py"
    cfg = Config.fromfile(path)
    assert tuple(cfg.model.backbone.depths) == (2, 2, 18, 2)
    stages = [tuple(heads) for heads in cfg.model.backbone.thinking_stages]
    assert stages == [(3, 3, 6, 12), (3, 6, 12, 24)]
    assert cfg.model.decode_head.in_channels == [96, 192, 384, 768]
    assert cfg.model.auxiliary_head.in_channels == 384
    assert cfg.train_dataloader.batch_size == 2


@pytest.mark.parametrize("path", sorted((CONFIGS / "_base_/backbones").glob("*swin_*.py")), ids=ids)
def test_swin_fragments(path):
    """The channels that heads are wired with are those of the levels."""
    cfg = Config.fromfile(path)
    with torch.device("meta"):
        backbone = MODELS.build(cfg.backbone | dict(num_classes=3))
    assert cfg.out_channels == list(backbone.level_dims)
    assert backbone.stage_dims[-1] == backbone.level_dims
    assert backbone.stage_dims[0][-1] == backbone.level_dims[-1] // 2


@pytest.mark.parametrize("path", sorted((CONFIGS / "_base_/backbones").glob("*_*h.py")), ids=ids)
def test_backbone_fragments(path):
    """The file name says the heads; swapping a backbone is swapping this file."""
    cfg = Config.fromfile(path)
    heads = tuple(int(part[:-1]) for part in path.stem.split("_")[1].split("-"))
    assert tuple(cfg.backbone.thinking_stages) == heads
    assert cfg.out_channels == cfg.backbone.embed_dims
