"""Images through a config's own pipeline, as its test dataset is built."""

import cv2
import numpy as np
import pytest
import torch
from helpers.builders import LINEAR, VIT
from mmcv.transforms import BaseTransform
from mmengine.config import Config, ConfigDict
from mmseg.registry import MODELS, TRANSFORMS

from tvit_seg.errors import CheckpointError, ConfigError, DataError
from tvit_seg.inference import Predictor

CLASSES = tuple("abcde")
IMAGE = np.random.default_rng(0).integers(0, 255, (40, 33, 3), np.uint8)


@TRANSFORMS.register_module(force=True)
class LoadBands(BaseTransform):
    """Bands from ``.npy`` files."""

    def transform(self, results):
        image = np.load(results["img_path"])
        shape = image.shape[:2]
        return {**results, "img": image, "img_shape": shape, "ori_shape": shape}


LOAD = dict(type="LoadImageFromFile")
REST = [dict(type="LoadAnnotations"), dict(type="PackSegInputs")]


def config(channels=3, load=LOAD, dataset=None):
    count = 3 if channels == 3 else 1
    normal = dict(mean=[100.0] * count, std=[50.0] * count)
    data = dict(
        type="BaseSegDataset",
        data_root="nowhere",
        metainfo=dict(classes=CLASSES, palette=[[i, i, i] for i in range(5)]),
        img_suffix=".npy",
        pipeline=[load, *REST],
    )
    model = dict(
        type="ThinkingEncoderDecoder",
        data_preprocessor=dict(type="SegDataPreProcessor", **normal),
        backbone=dict(VIT, in_channels=channels),
        decode_head=LINEAR,
        test_cfg=dict(mode="whole"),
    )
    return Config(dict(model=model, test_dataloader=dict(dataset=(dataset or dict)(data))))


def concat(data):
    return dict(type="ConcatDataset", datasets=[data, data])


def repeat(data):
    return dict(type="RepeatDataset", times=2, dataset=concat(data))


@pytest.fixture
def predictor(tmp_path):
    """A predictor of a config with random weights in a plain state dict."""

    def build(cfg, **meta):
        torch.manual_seed(0)
        state = MODELS.build(ConfigDict(cfg.model)).state_dict()
        torch.save(dict(state_dict=state, meta=meta) if meta else state, tmp_path / "plain.pth")
        return Predictor(cfg, tmp_path / "plain.pth")

    return build


@pytest.mark.parametrize("wrap", [None, concat, repeat], ids=["plain", "concat", "repeat"])
def test_metainfo_of_the_dataset_as_built(predictor, wrap):
    found = predictor(config(dataset=wrap))
    assert found.dataset_meta["classes"] == CLASSES
    assert list(found.dataset_meta["palette"][2]) == [2, 2, 2]
    assert found(IMAGE).pred_sem_seg.shape == (40, 33)


def test_classes_of_a_checkpoint_come_first(predictor):
    found = predictor(config(), dataset_meta=dict(classes=list("vwxyz")))
    assert found.dataset_meta["classes"] == list("vwxyz")


def test_a_file_equals_its_array(predictor, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE)
    found = predictor(config())
    for image in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert torch.equal(found(image).pred_sem_seg.data, found(IMAGE).pred_sem_seg.data)


def test_rgba_and_grey_arrays_for_a_colour_model(predictor):
    found = predictor(config())
    alpha = np.dstack([IMAGE, np.full((40, 33), 9, np.uint8)])
    assert torch.equal(found(alpha).pred_sem_seg.data, found(IMAGE).pred_sem_seg.data)
    grey = IMAGE[..., 0]
    expected = found(np.dstack([grey] * 3)).pred_sem_seg.data
    for image in (grey, grey[..., None]):
        assert torch.equal(found(image).pred_sem_seg.data, expected)


def test_one_channel_model(predictor, tmp_path):
    found = predictor(config(1, dict(LOAD, color_type="grayscale")))
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE)
    grey = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_GRAYSCALE)
    expected = found(tmp_path / "a.png").pred_sem_seg.data
    assert torch.equal(found(grey).pred_sem_seg.data, expected)
    assert found(IMAGE).pred_sem_seg.shape == (40, 33)


def test_own_loader(predictor, tmp_path):
    found = predictor(config(6, dict(type="LoadBands")))
    bands = np.random.default_rng(0).normal(100, 50, (40, 33, 6)).astype(np.float32)
    np.save(tmp_path / "a.npy", bands)
    expected = found(bands).pred_sem_seg.data
    assert torch.equal(found(tmp_path / "a.npy").pred_sem_seg.data, expected)
    assert found.img_suffix == ".npy"


@pytest.mark.parametrize("shape", [(40,), (40, 33, 5), (0, 33, 3), (2, 40, 33, 3)])
def test_arrays_that_do_not_fit(predictor, shape):
    with pytest.raises(DataError, match=r"channels|shape"):
        predictor(config())(np.zeros(shape, np.uint8))


def test_bad_files(predictor, tmp_path):
    found = predictor(config())
    with pytest.raises(DataError, match=r"a\.png cannot be read: No such file"):
        found(tmp_path / "a.png")
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(DataError, match=r"a\.png: corrupt or truncated"):
        found(tmp_path / "a.png")


def test_configs_that_tell_too_little(predictor):
    cfg = config()
    del cfg.test_dataloader.dataset.metainfo
    with pytest.raises(CheckpointError, match="classes"):
        predictor(cfg)
    cfg.pop("test_dataloader")
    with pytest.raises(ConfigError, match="test_dataloader"):
        predictor(cfg)
