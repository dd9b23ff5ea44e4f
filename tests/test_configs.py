"""Every shipped config builds, trains a step and tests."""

from itertools import product
from pathlib import Path

import pytest
import torch
from helpers.builders import class_samples, samples
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import CosineAnnealingLR
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from PIL import Image
from timm.data import create_transform

from tvit_seg import ThinkingClassifier, ThinkingEncoderDecoder, stage_macs
from tvit_seg.engine import ThinkingRunner
from tvit_seg.engine.config_check import check_config

CONFIGS = Path(__file__).parents[1] / "configs"
LEAVES = sorted(
    path for path in CONFIGS.rglob("*.py") if "_base_" not in path.relative_to(CONFIGS).parts
)
PRETRAINING = [path for path in LEAVES if path.parent.name == "pretrain"]
LONGER = [path for path in PRETRAINING if "_8xb128-800e_" in path.stem]
DISTILLED = [path for path in PRETRAINING if "-distilled_" in path.stem]
BASELINES = [path for path in LEAVES if path.parent.name == "baselines"]
SEGMENTATION = [path for path in LEAVES if path not in PRETRAINING + BASELINES]


def ids(path):
    return path.stem


def build(path, tmp_path):
    """Runner and config, with the optimizer and the metrics built."""
    cfg = Config.fromfile(path)
    cfg.work_dir, cfg.launcher, cfg.log_level = str(tmp_path), "none", "ERROR"
    cfg.experiment_name = f"{path.stem}-{tmp_path.name}"
    if "distill" in cfg.model:  # the teacher is an optional package
        cfg.model.distill.teacher = dict(type="timm.create_model", model_name="test_resnet")
        cfg.model.distill.tokens = dict(pool="global_pool", classifier="fc")
    runner = ThinkingRunner.from_cfg(cfg)
    runner.optim_wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    if cfg.val_evaluator is not None:
        runner.build_evaluator(cfg.val_evaluator)
    return runner, cfg


@pytest.mark.integration
@pytest.mark.parametrize("path", SEGMENTATION, ids=ids)
def test_segmentation_config(path, tmp_path):
    runner, cfg = build(path, tmp_path)
    model = runner.model
    assert isinstance(model, ThinkingEncoderDecoder)
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
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        assert model.inference(images).shape == (1, cfg.num_classes, *size)
        assert model.predict(images)[0].pred_sem_seg.data.shape == (1, *size)
    costs = stage_macs(model, size)
    assert costs == sorted(costs)


@pytest.mark.integration
@pytest.mark.parametrize("path", [p for p in PRETRAINING if p not in LONGER + DISTILLED], ids=ids)
def test_pretraining_config(path, tmp_path):
    runner, cfg = build(path, tmp_path)
    model = runner.model
    assert isinstance(model, ThinkingClassifier)
    for pipeline in (cfg.train_pipeline, cfg.test_pipeline):
        image = create_transform(normalize=False, **pipeline)(Image.new("RGB", (300, 260)))
        assert image.shape == (3, *cfg.image_size)
    assert cfg.train_dataloader.dataset.transform == cfg.train_pipeline
    assert cfg.val_dataloader.dataset.transform == cfg.test_pipeline

    size = (64, 64)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(2)]
    data = dict(inputs=images, data_samples=class_samples([0, cfg.num_classes - 1]))
    model.train()
    log_vars = model.train_step(data, runner.optim_wrapper)
    assert len(log_vars) >= 1 + model.num_stages
    stepped = runner.optim_wrapper.optimizer.state  # of parameters that had a gradient
    unused = [name for name, p in model.named_parameters() if p not in stepped]
    assert not unused
    model.eval()
    result = model.val_step(data)[0]
    assert result.pred_score.shape == (cfg.num_classes,)
    assert result.stage_scores.shape == (model.num_stages, cfg.num_classes)


@pytest.mark.integration
@pytest.mark.parametrize("path", DISTILLED, ids=ids)
def test_distilled_config(path, tmp_path):
    runner, cfg = build(path, tmp_path)
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    data = dict(inputs=images, data_samples=class_samples([0, cfg.num_classes - 1]))
    log_vars = runner.model.train().train_step(data, runner.optim_wrapper)
    losses = {f"stage{i}.loss_{part}" for i in (0, 1) for part in ("distill", "tokens")}
    assert losses == log_vars.keys() - {"loss"}
    stepped = runner.optim_wrapper.optimizer.state
    assert all(p in stepped for p in runner.model.parameters())


@pytest.mark.integration
@pytest.mark.parametrize("path", BASELINES, ids=ids)
def test_baseline_config(path, tmp_path):
    runner, cfg = build(path, tmp_path)
    assert isinstance(runner.model, EncoderDecoder)
    labels = torch.randint(0, cfg.num_classes, (2, 64, 64))
    runner.model.train()
    loss, _ = runner.model.parse_losses(
        runner.model.loss(torch.randn(2, 3, 64, 64), samples(labels))
    )
    assert loss.isfinite()


@pytest.mark.parametrize("path", LEAVES, ids=ids)
def test_nothing_to_complain_of(path):
    check_config(Config.fromfile(path))


class FakeDataset:
    """Numbers, in place of a dataset that is not on this machine."""

    metainfo = dict(classes=("one",))

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return dict(inputs=torch.full((3, 4, 4), index), data_samples=index)


@pytest.mark.parametrize("workers", [None, 0], ids=["as-shipped", "debugging"])
@pytest.mark.parametrize("path", LEAVES, ids=ids)
def test_loaders(path, workers):
    """Every loader is built, also with ``num_workers=0`` beside what a base file has."""
    cfg = Config.fromfile(path)
    names = ("train_dataloader", "val_dataloader", "test_dataloader")
    for name in [name for name in names if cfg.get(name)]:
        loader = {**cfg[name], "batch_size": 2, "dataset": dict(type=FakeDataset)}
        loader |= {} if workers is None else dict(num_workers=workers)
        built = ThinkingRunner.build_dataloader(loader, seed=0)
        assert built.num_workers == loader["num_workers"]
        assert built.persistent_workers == (built.num_workers > 0)
        if workers == 0:
            assert len(next(iter(built))["inputs"]) == 2


@pytest.mark.parametrize("path", LONGER, ids=ids)
def test_longer_recipe(path):
    """800 epochs are 300 epochs in all but the schedule."""
    longer, short = Config.fromfile(path), Config.fromfile(str(path).replace("800e", "300e"))
    assert longer.train_cfg.max_epochs == longer.param_scheduler[1].end == longer.max_epochs == 800
    for cfg in (longer, short):
        for name in ("max_epochs", "train_cfg", "param_scheduler"):
            cfg.pop(name)
    assert longer.to_dict() == short.to_dict()


def test_published_recipe():
    path = CONFIGS / "pretrain/thinkingvit-3h-6h_8xb128-300e_imagenet-224x224.py"
    cfg = Config.fromfile(path)
    assert cfg.model.backbone.thinking_stages == (3, 6)
    assert cfg.model.backbone.gate == dict(type="EntropyGate", threshold=1.0, topk=10)
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert cfg.model.label_smoothing == 0.1
    assert cfg.optim_wrapper.optimizer.lr == 5e-4
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=512)
    assert cfg.custom_hooks[0].momentum == pytest.approx(1 - 0.99996)


@pytest.mark.parametrize("path", PRETRAINING, ids=ids)
def test_learning_rates_of_all_layers_fall_to_the_same_share(path):
    """A limit for all would raise those that layer decay has made small."""
    cosine = Config.fromfile(path).param_scheduler[-1]
    assert cosine.type == "CosineAnnealingLR"
    options = {k: v for k, v in cosine.items() if k.startswith("eta_min")}
    rates = [1e-3, 1e-6]
    groups = [dict(params=[torch.zeros(1, requires_grad=True)], lr=rate) for rate in rates]
    optimizer = torch.optim.SGD(groups)
    scheduler = CosineAnnealingLR(optimizer, T_max=10, **options)
    for _ in range(10):
        optimizer.step()
        scheduler.step()
    found = [group["lr"] for group in optimizer.param_groups]
    shares = [value / rate for value, rate in zip(found, rates, strict=True)]
    assert shares[0] == pytest.approx(shares[1])
    assert 0 < shares[0] <= 0.01


def test_published_swin_recipe():
    cfg = Config.fromfile(CONFIGS / "pretrain/thinkingswin-small_8xb128-300e_imagenet-224x224.py")
    assert cfg.model.backbone.drop_path_rate == 0.3
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.begin, cosine.end) == (20, 20, 300)
    assert cfg.optim_wrapper.clip_grad.max_norm == 5
    assert cfg.optim_wrapper.optimizer.lr == 5e-4
    assert cfg.model.pretrained.endswith("swin_small_patch4_window7_224.pth")


def test_published_head_counts_have_a_recipe():
    published = ["2h-3h", "2h-3h-6h", "2h-6h", "3h-6h", "3h-6h-12h", "3h-9h", "3h-12h"]
    for stages, epochs in product(published, (300, 800)):
        name = f"thinkingvit-{stages}_8xb128-{epochs}e_imagenet-224x224.py"
        assert CONFIGS / "pretrain" / name in PRETRAINING


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


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "_base_/backbones").glob("thinking*_*h.py")), ids=ids
)
def test_backbone_fragments(path):
    """The file name says the heads; swapping a backbone is swapping this file."""
    cfg = Config.fromfile(path)
    heads = tuple(int(part[:-1]) for part in path.stem.split("_")[1].split("-"))
    assert tuple(cfg.backbone.thinking_stages) == heads
    with torch.device("meta"):
        assert cfg.out_channels == MODELS.build(cfg.backbone | dict(num_classes=3)).embed_dims
