"""Configs are refused by field, and errors of building name the part and its type."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import LOOPS, OPTIMIZERS
from mmseg.registry import DATASETS, MODELS
from torch import nn

from tvit_seg.engine import ThinkingRunner
from tvit_seg.engine.config_check import building, check_config, check_ignore_index, naming_key
from tvit_seg.errors import CheckpointError, ConfigError, DataError
from tvit_seg.weights.io import read_checkpoint

DATA = dict(type="SceneDataset")


@pytest.mark.parametrize("kind", [dict, Config])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(load_from=["a.pth"]), "load_from must be None or a path"),
        (dict(default_scope=7), "default_scope must be a name"),
        (dict(randomness=dict(seed=-1)), r"randomness\.seed must be an integer >= 0"),
        (dict(optim_wrapper=dict(optimizer=None)), r"optim_wrapper\.optimizer must be"),
        (dict(train_cfg=dict(max_iters=0)), r"train_cfg\.max_iters must be an integer >= 1, got 0"),
        (dict(train_cfg=dict(val_interval="2")), r"train_cfg\.val_interval must be .*, got '2'"),
        (dict(optim_warpper=dict()), "'optim_warpper'; did you mean 'optim_wrapper'"),
        (dict(val_dataloader=dict(batchsize=2)), "'batchsize'; did you mean 'batch_size'"),
    ],
)
def test_fields(kind, change, message):
    with pytest.raises(ConfigError, match=message):
        check_config(kind(change))


def test_a_single_class_without_its_comma(tmp_path):
    """mmseg would train on the classes w, a, t, e, r."""

    def config(classes):
        data = dict(type="RepeatDataset", dataset=dict(DATA, metainfo=dict(classes=classes)))
        return dict(train_dataloader=dict(dataset=data))

    message = r"train_dataloader\.dataset\.dataset\.metainfo\.classes must be .*\('water',\)"
    with pytest.raises(ConfigError, match=message):
        check_config(config("water"))
    check_config(config(("water",)))
    (tmp_path / "names.txt").write_text("water\n")
    check_config(config(str(tmp_path / "names.txt")))


def test_layer_decay_of_mmseg_knows_no_thinking_backbone():
    optim = dict(constructor="LearningRateDecayOptimizerConstructor", optimizer=dict(type="SGD"))
    cfg = dict(model=dict(backbone=dict(type="tvit_seg.ThinkingViT")), optim_wrapper=optim)
    with pytest.raises(ConfigError, match="constructor must be 'LayerDecayOptimWrapperConstr"):
        check_config(cfg)
    cfg["model"]["backbone"]["type"] = "ConvNeXt"
    check_config(cfg)


def test_a_loader_is_named_and_not_its_loop():
    loader = dict(
        dataset=DATA, batch_size=2, num_workers=0, timeout=-1, sampler=dict(type="DefaultSampler")
    )
    loop = dict(type="IterBasedTrainLoop", max_iters=1)
    cfg = Config(dict(train_cfg=loop, train_dataloader=loader, val_dataloader=dict(dataset=DATA)))

    class Data(list):
        metainfo = {}

    built = {**cfg.train_dataloader, "dataset": Data([1])}
    cfg.train_dataloader.dataset = built["dataset"]
    message = r"building train_dataloader \(DataLoader\): timeout"
    with pytest.raises(ConfigError, match=message), building(cfg):
        LOOPS.build(cfg.train_cfg, default_args=dict(dataloader=built, runner=FakeRunner()))


class FakeRunner:
    """Builds loaders as the real one does, for a loop."""

    build_dataloader = staticmethod(ThinkingRunner.build_dataloader)
    _randomness_cfg = {}
    seed = 0


@pytest.mark.parametrize("key", ["checkpoint", "pretrained"])
def test_the_key_of_a_checkpoint_is_named(key):
    url = "https://example.org/swin.pth"
    part = dict(init_cfg=dict(type="Pretrained", checkpoint=url))
    part = part if key == "checkpoint" else dict(pretrained=url)
    where = "model.backbone.init_cfg" if key == "checkpoint" else "model.backbone.pretrained"
    cfg = dict(model=dict(backbone=part))
    with pytest.raises(CheckpointError, match=f"^{where}: checkpoint {url}"), naming_key(cfg):
        read_checkpoint(url)
    with pytest.raises(FileNotFoundError, match=r"^checkpoint other"), naming_key(cfg):
        read_checkpoint("other.pth")


def test_good_configs():
    loader = dict(dataset=DATA, batch_size=2, num_batch_per_epoch=3, collate_fn=dict(type="x"))
    check_config(dict(train_dataloader=loader, val_dataloader=None, crop_size=(1, 2)))
    check_config(dict(train_cfg=dict(by_epoch=True, max_epochs=1), randomness=dict(seed=None)))
    check_config(Config(dict(model=dict(gate=dict(threshold=math.inf)), load_from=None)))


def test_sections():
    cfg = dict(train_dataloader=None, val_cfg={})
    check_config(cfg)
    with pytest.raises(ConfigError, match=r"^the config has no train_dataloader, no model$"):
        check_config(cfg, ("val_cfg", "train_dataloader", "model"))


def test_a_part_and_the_reason_are_named():
    head = dict(type="FCNHead", in_channels="many", channels=8, num_classes=2)
    cfg = Config(dict(decode_head=head, model=dict(type="EncoderDecoder", decode_head=head)))
    message = (
        r"^while building model\.decode_head \(FCNHead\): "
        r"AssertionError: assert isinstance\(in_channels, int\)$"
    )
    with pytest.raises(ConfigError, match=message), building(cfg):
        MODELS.build(cfg.model.decode_head)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (dict(type="FCNHead", num_conv=1), r"'num_conv'; did you mean 'num_convs'\?$"),
        (dict(type="FCNHead", in_chanels=1), r"'in_chanels'; did you mean 'in_channels'\?$"),
        (dict(type="NoHead"), r"\(NoHead\): NoHead is not in the mmseg::model registry\.$"),
        (dict(in_channels=1), r"\(no type\): "),
    ],
)
def test_names_that_are_wrong(head, message):
    cfg = dict(model=dict(type="EncoderDecoder", decode_head=head))
    with pytest.raises(ConfigError, match=message) as caught, building(cfg):
        MODELS.build(head)
    assert str(caught.value).startswith("while building model.decode_head")


def test_the_innermost_part_is_named():
    backbone = dict(type="ThinkingViT", thinking_stages=(4, 2))
    cfg = dict(model=dict(type="EncoderDecoder", backbone=backbone, decode_head=None))
    message = r"model\.backbone \(ThinkingViT\): .*stages"
    with pytest.raises(ConfigError, match=message), building(cfg):
        MODELS.build(cfg["model"])
    cfg = dict(model=dict(heads=[backbone, dict(type="FCNHead")]))
    message = r"model\.heads\.1 \(FCNHead\): TypeError"
    with pytest.raises(ConfigError, match=message), building(cfg):
        MODELS.build(cfg["model"]["heads"][1])


def test_arguments_that_are_added_on_the_way():
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type="AdamW", lr="0.1"))))
    message = r"optim_wrapper\.optimizer \(AdamW\): TypeError"
    with pytest.raises(ConfigError, match=message), building(cfg):
        parameters = [nn.Parameter(torch.zeros(1))]
        OPTIMIZERS.build(dict(cfg.optim_wrapper.optimizer, params=parameters))


def test_other_errors_pass(tmp_path):
    with pytest.raises(DataError, match="not found"), building({}):
        DATASETS.build(dict(type="TimmDataset", data_root=str(tmp_path / "nowhere")))
    with pytest.raises(KeyError), building({}):
        {}[1]


def ignoring(index=255, **changes):
    """A config in which every part ignores this label; ``changes`` are dotted."""
    steps = [dict(type="RandomRotate", prob=1, degree=9, seg_pad_val=index)]
    steps.append(dict(type="Pad", size=(9, 9), pad_val=dict(img=0, seg=index)))
    data = dict(type="BaseSegDataset", ignore_index=index, pipeline=steps, img_suffix=".png")
    head = dict(type="FCNHead", ignore_index=index)
    metrics = [dict(type=f"{kind}Metric", ignore_index=index) for kind in ("ExactIoU", "Thinking")]
    model = dict(
        data_preprocessor=dict(type="SegDataPreProcessor", seg_pad_val=index),
        decode_head=head,
        auxiliary_head=[head, dict(head, loss_decode=[dict(type="DiceLoss", ignore_index=1)])],
        image_loss=dict(target="presence"),
    )
    repeated = dict(type="RepeatDataset", dataset=dict(data, skip_corrupt=True), times=2)
    cfg = Config(
        dict(
            model=model,
            train_dataloader=dict(dataset=repeated),
            val_dataloader=dict(dataset=data),
            val_evaluator=metrics,
            test_dataloader=None,
        )
    )
    cfg.merge_from_dict(changes)
    return cfg


@pytest.mark.parametrize("index", [255, 254, 0])
def test_one_ignored_label(index):
    cfg = ignoring(index)
    check_ignore_index(cfg)
    check_ignore_index(dict(model=dict(type="ThinkingTTAModel", module=cfg.model)))
    check_ignore_index(dict(model=dict(type="ThinkingClassifier")))


@pytest.mark.parametrize(
    "option",
    [
        "model.decode_head.ignore_index",
        "model.auxiliary_head.1.ignore_index",
        "model.image_loss.ignore_index",
        "model.data_preprocessor.seg_pad_val",
        "train_dataloader.dataset.dataset.ignore_index",
        "val_dataloader.dataset.pipeline.0.seg_pad_val",
        "val_dataloader.dataset.pipeline.1.pad_val.seg",
        "val_evaluator.1.ignore_index",
    ],
)
def test_parts_that_ignore_different_labels(option):
    part = option.rpartition(".")[0].removesuffix(".pad_val")
    with pytest.raises(ConfigError, match=rf"must be the same.*(254 in {part}(;|$))") as caught:
        check_ignore_index(ignoring(**{option: 254}))
    assert "255 in " in str(caught.value)


def test_labels_that_are_ignored_by_default():
    cfg = ignoring(254)
    del cfg.val_evaluator[0]["ignore_index"], cfg.model.data_preprocessor["seg_pad_val"]
    with pytest.raises(ConfigError, match=r"255 in model\.data_preprocessor, val_evaluator\.0"):
        check_ignore_index(cfg)
