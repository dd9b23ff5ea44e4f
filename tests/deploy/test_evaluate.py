import numpy as np
import pytest
import torch
from helpers.bands import write as write_bands
from helpers.builders import segmentor
from helpers.classification import CLASSES, image_folder
from helpers.classification import config as classification_config
from helpers.deployment import GATE, ModuleHost
from mmengine.config import Config
from mmseg.evaluation import IoUMetric

from tvit_seg import FixedGate
from tvit_seg.datasets.scenes import write_scenes
from tvit_seg.deploy.evaluate import evaluate, load_images, validation_set
from tvit_seg.errors import ExportError
from tvit_seg.inference import load_model


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root, num_train=1, num_val=4, size=(64, 64))
    steps = [dict(type=t) for t in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")]
    prefix = dict(img_path="img_dir/val", seg_map_path="ann_dir/val")
    dataset = dict(type="SceneDataset", data_root=str(root), data_prefix=prefix, pipeline=steps)
    loader = dict(dataset=dataset)
    metric = [dict(type="IoUMetric", iou_metrics=["mIoU"])]
    return Config(dict(val_dataloader=loader, test_dataloader=loader, val_evaluator=metric))


def model_and_host(cfg):
    head = dict(
        type="FCNHead", num_convs=0, concat_input=False, in_channels=32, channels=32,
        num_classes=7, dropout_ratio=0,
    )  # fmt: skip
    pre = dict(type="SegDataPreProcessor", mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True)
    model = segmentor(GATE, head=head, data_preprocessor=pre)
    return model, ModuleHost(model, (64, 64), cfg=cfg)


def test_mean_iou_is_that_of_mmseg(cfg):
    model, host = model_and_host(cfg)
    scores = evaluate(model, cfg, {"modules": host})
    assert scores["modules"] == pytest.approx(scores["PyTorch"], abs=0.01)
    metric = IoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = dict(classes=tuple("abcdefg"))
    for _, item in validation_set(cfg):
        batch = {name: [value] for name, value in item.items()}
        with torch.no_grad():
            metric.process(batch, [sample.to_dict() for sample in model.test_step(batch)])
    assert metric.evaluate(4)["mIoU"] == pytest.approx(scores["PyTorch"], abs=0.01)


def test_a_single_graph_is_compared_with_its_stage(cfg):
    model, _ = model_and_host(cfg)
    model.backbone.set_gate(FixedGate(1))
    host = ModuleHost(model, (64, 64), stage=0, cfg=cfg)
    scores = evaluate(model, cfg, {"modules": host}, stage=0)
    assert scores["modules"] == pytest.approx(scores["PyTorch"], abs=0.01)
    assert model.backbone.gate.stage == 1  # unchanged
    assert evaluate(model, cfg, {}) != pytest.approx({"PyTorch": scores["PyTorch"]}, abs=0.01)


def test_accuracy(tmp_path):
    cfg = classification_config(image_folder(tmp_path / "images"), tmp_path)
    model, _ = load_model(cfg, None)
    host = ModuleHost(model, (32, 32), cfg=cfg)
    scores = evaluate(model, cfg, {"modules": host})
    right = [
        int(model.test_step({k: [v] for k, v in item.items()})[0].pred_label)
        == int(item["data_samples"].gt_label)
        for _, item in validation_set(cfg)
    ]
    assert len(right) == 4 * len(CLASSES)
    assert scores == pytest.approx(
        {"PyTorch": 100 * np.mean(right), "modules": 100 * np.mean(right)}
    )


def test_images_of_the_validation_set(cfg):
    assert [image.shape for image in load_images(cfg, None, 3)] == [(64, 64, 3)] * 3
    wrong = Config(cfg.to_dict())
    wrong.val_dataloader.dataset.data_root = "nowhere"
    with pytest.raises(ExportError, match=r"validation set cannot be read.*--images FOLDER"):
        load_images(wrong, None, 3)
    with pytest.raises(ExportError, match="there is no val_dataloader"):
        load_images(Config(dict()), None, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.uint16])
def test_files_are_read_by_the_loader_of_the_pipeline(tmp_path, dtype):
    cfg = write_bands(tmp_path, bands=3, dtype=dtype)
    expected = np.load(tmp_path / "images/0.npy")
    for folder in (None, tmp_path / "images"):
        if dtype == np.float32:  # with decimals, which the host cannot take
            with pytest.raises(ExportError, match=r"0\.npy: .* of 8 bits, .* of float32"):
                load_images(cfg, folder, 2)
            continue
        first, _ = load_images(cfg, folder, 2)
        assert first.dtype == np.uint8
        assert np.array_equal(first, expected)
    cfg.val_dataloader.dataset.data_root = "nowhere"  # only its loader is asked for
    if dtype == np.uint8:
        assert len(load_images(cfg, tmp_path / "images", 9)) == 3
