"""A file is what the loader that its pipeline names makes of it."""

import cv2
import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmseg.registry import TRANSFORMS
from PIL import Image

from tvit_seg.datasets.check import check_config_data, survey_config
from tvit_seg.datasets.corrupt import build_guarded
from tvit_seg.datasets.reader import FileReader
from tvit_seg.errors import ConfigError, CorruptImageError, DataError

SIZE = (8, 10)
LABELS = np.arange(80, dtype=np.uint8).reshape(SIZE) % 3


@TRANSFORMS.register_module(force=True)
class LoadArray(BaseTransform):
    """Bands from ``.npy`` files."""

    def transform(self, results):
        image = np.load(results["img_path"])
        return {**results, "img": image, "img_shape": SIZE, "ori_shape": SIZE}


@TRANSFORMS.register_module(force=True)
class LoadArrayLabels(BaseTransform):
    """Labels from ``.npy`` files, stored as 10, 20, 30."""

    def transform(self, results):
        label = np.load(results["seg_map_path"]) // 10 - 1
        return {**results, "gt_seg_map": label.astype(np.uint8)}


ARRAYS = [dict(type="LoadArray"), dict(type="LoadArrayLabels"), dict(type="PackSegInputs")]
PICTURES = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(root, images, labels, ending=".npy", label_ending=".npy"):
    """A config of two splits with these functions that write a file."""
    loaders = {}
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (root / split / folder).mkdir(parents=True)
        for name in "ab":
            images(root / split / "images" / f"{name}{ending}")
            labels(root / split / "labels" / f"{name}{label_ending}")
        dataset = dict(
            type="BaseSegDataset",
            data_root=str(root / split),
            data_prefix=dict(img_path="images", seg_map_path="labels"),
            metainfo=dict(classes=("road", "car", "sky")),
            img_suffix=ending,
            seg_map_suffix=label_ending,
        )
        loaders[f"{split}_dataloader"] = dict(batch_size=1, dataset=dataset)
    return Config(loaders)


def use(cfg, pipeline):
    for name in ("train_dataloader", "val_dataloader"):
        cfg[name].dataset.pipeline = pipeline
    return cfg


@pytest.fixture
def arrays(tmp_path):
    bands = np.ones((*SIZE, 6), np.float32)
    cfg = write(
        tmp_path,
        lambda path: np.save(path, bands),
        lambda path: np.save(path, (LABELS + 1) * np.uint16(10)),
    )
    return use(cfg, ARRAYS)


def png(path):
    Image.fromarray(LABELS).save(path)


class TestOwnLoaders:
    def test_the_check_passes_and_counts(self, arrays):
        check_config_data(arrays)
        found = survey_config(arrays)[0]
        assert found.problems == []
        assert found.pixels.tolist() == [2 * int((i == LABELS).sum()) for i in range(3)]

    def test_training_reads_them(self, arrays):
        sample = build_guarded(arrays.train_dataloader.dataset)[0]
        assert sample["inputs"].shape == (6, *SIZE)

    def test_a_truncated_one_is_named_with_its_loader(self, arrays, tmp_path):
        bad = tmp_path / "train/images/b.npy"
        bad.write_bytes(bad.read_bytes()[:200])
        message = f"{bad}: corrupt or truncated"
        with pytest.raises(DataError, match=f"1 x image or label\n  {message}"):
            check_config_data(arrays)
        with pytest.raises(CorruptImageError, match=message):
            build_guarded(arrays.train_dataloader.dataset)[1]
        cfg = dict(arrays.train_dataloader.dataset, skip_corrupt=True)
        assert build_guarded(cfg)[1]["data_samples"].skipped

    def test_wrong_values_are_those_that_training_gets(self, arrays, tmp_path):
        np.save(tmp_path / "train/labels/a.npy", np.full(SIZE, 90, np.uint16))
        with pytest.raises(DataError, match="label values 8 not allowed; allowed are 0-2, 255"):
            check_config_data(arrays)


def test_bands_that_pil_does_not_know(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    bands = np.full((*SIZE, 4), 3000, np.uint16)
    cfg = write(tmp_path, lambda path: tifffile.imwrite(path, bands), png, ".tif", ".png")
    options = dict(color_type="unchanged", imdecode_backend="tifffile")
    check_config_data(use(cfg, [{**PICTURES[0], **options}, PICTURES[1]]))
    assert not any("16 bits" in remark for s in survey_config(cfg) for remark in s.remarks)


def test_bands_through_opencv(tmp_path):
    bands = np.full((*SIZE, 4), 3000, np.uint16)
    cfg = write(tmp_path, lambda path: cv2.imwrite(str(path), bands), png, ".tiff", ".png")
    check_config_data(use(cfg, [dict(PICTURES[0], color_type="unchanged"), PICTURES[1]]))


def test_a_package_that_is_missing_is_not_the_files_fault(tmp_path):
    class Needs:
        def __call__(self, data):
            raise ImportError("`tifffile` is not installed")

    with pytest.raises(ConfigError, match="Needs: `tifffile` is not installed"):
        FileReader([Needs()]).image(dict(img_path="a.tif"))


@pytest.mark.parametrize(("peak", "remarks"), [(3000, 1), (60000, 0)])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_few_bits_in_files_of_16(tmp_path, peak, remarks, ending):
    image = np.full((*SIZE, 3), peak, np.uint16)
    cfg = write(tmp_path, lambda path: cv2.imwrite(str(path), image), png, ending, ".png")
    found = survey_config(use(cfg, PICTURES))[0].remarks
    told = [text for text in found if "16 bits per value" in text]
    assert len(told) == remarks
    assert all("none above 3000" in text and "0 to 11 of 255" in text for text in told)
    if remarks:
        with pytest.warns(UserWarning, match="0 to 11 of 255"):
            check_config_data(cfg)


def test_images_without_labels_pass_over_the_loader_of_labels(tmp_path):
    cfg = write(tmp_path, png, png, ".png", ".png").train_dataloader.dataset
    cfg.data_prefix.pop("seg_map_path")
    cfg.pipeline = [*PICTURES, dict(type="PackSegInputs")]
    sample = build_guarded(cfg)[0]
    assert "gt_sem_seg" not in sample["data_samples"]
