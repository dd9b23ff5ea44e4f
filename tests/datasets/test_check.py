"""The check before training: what it refuses and what it remembers."""

import os
import shutil

import cv2
import numpy as np
import pytest
from helpers.survey_data import SIZE, save, settings
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmseg.datasets import BaseSegDataset, CityscapesDataset
from PIL import Image

from tvit_seg.datasets.check import check_config_data, check_dataset
from tvit_seg.errors import DataError


def build(root, cls=BaseSegDataset, serialize_data=False, **kwargs):
    # Serialising collects garbage, a fifth of a second each time.
    return cls(**settings(root, serialize_data=serialize_data, **kwargs))


@pytest.fixture
def root(tmp_path):
    for name in "abc":
        save(tmp_path / "data", name, (0, 1, 2, 255))
    return tmp_path / "data"


def error(dataset, **kwargs):
    with pytest.raises(DataError) as caught:
        check_dataset(dataset, **kwargs)
    return str(caught.value)


class TestGoodData:
    def test_palette_and_one_bit_labels_pass(self, root):
        grey = Image.open(root / "labels/a.png")
        palette = grey.copy()
        palette.putpalette(list(range(256)) * 3)
        palette.save(root / "labels/b.png")
        grey.point(lambda value: value == 1, "1").save(root / "labels/c.png")
        check_dataset(build(root))

    def test_orientation_counts_as_opencv_decodes(self, root):
        exif = Image.Exif()
        exif[0x0112] = 6  # a quarter turn
        Image.new("RGB", SIZE[::-1]).save(root / "images/b.png", exif=exif)
        save(root, "b", (0,), image=False, size=SIZE[::-1])
        check_dataset(build(root))

    def test_wrappers_are_followed(self, root):
        wrapped = ConcatDataset([build(root)]), RepeatDataset(build(root), 2)
        for dataset in wrapped:
            check_dataset(dataset)
        save(root, "b", (11,))
        for dataset in wrapped:
            assert "label values 11" in error(dataset)

    def test_other_datasets_are_refused(self):
        with pytest.raises(TypeError, match="list"):
            check_dataset([])


def test_masks_of_black_and_white(tmp_path):
    """They would train to an mIoU of 0: the foreground is ignored."""
    cfg = Config(dict(train_dataloader=dict(dataset=settings(tmp_path, type="BaseSegDataset"))))
    save(tmp_path, "a", (0, 255))
    with pytest.raises(DataError, match=r"only 0 and 255(.|\n)*hint: .*must be stored as 1"):
        check_config_data(cfg)
    save(tmp_path, "b", (0, 1))
    check_config_data(cfg)


class TestFiles:
    def test_indices_and_name_lists_leave_other_files_out(self, root):
        (root / "labels/b.png").unlink()
        (root / "names.txt").write_text("a\nc\n")
        check_dataset(build(root, indices=[0], lazy_init=True))
        check_dataset(build(root, ann_file="names.txt"))
        message = error(build(root, indices=[], serialize_data=True, lazy_init=True))
        assert "of 3 images, indices or a filter leave none" in message
        (root / "names.txt").write_text("a\nnobody\n")
        assert "nobody.png" in error(build(root, ann_file="names.txt"))
        (root / "names.txt").write_text("a\n\nc\n")
        assert "names.txt: line 2 is blank" in error(build(root, ann_file="names.txt"))

    def test_filters_are_respected(self, root):
        class Filtered(BaseSegDataset):
            def filter_data(self):
                return [info for info in self.data_list if os.path.exists(info["seg_map_path"])]

        (root / "labels/b.png").unlink()
        check_dataset(build(root, Filtered))

    def test_nothing_there(self, root):
        assert "is empty" in error(build(root, img_suffix=".jpeg", lazy_init=True))
        assert "has no classes" in error(build(root, metainfo=None))
        check_dataset(build(root, metainfo=None), num_classes=3)
        prefix = {"img_path": "images"}
        assert "seg_map_path" in error(build(root, data_prefix=prefix, lazy_init=True))
        shutil.rmtree(root / "labels")
        message = error(build(root))
        assert f"not found: '{root}/labels'" in message
        assert "expected layout" in message

    def test_missing_partners(self, root):
        for i in range(8):
            save(root, f"alone{i}", None)
        save(root, "orphan", (0,), image=False)
        lines = error(build(root)).splitlines()
        assert "8 x images without label" in lines
        assert sum("images/alone" in line for line in lines[1:]) == 5
        assert "  ... and 3 more" in lines
        assert lines[lines.index("1 x labels without image") + 1].endswith("orphan.png")

    def test_a_jpeg_that_opencv_fills_with_grey(self, root, monkeypatch):
        path = root / "images/a.png"
        Image.effect_noise(SIZE[::-1], 99).convert("RGB").save(path, "jpeg")
        path.write_bytes(path.read_bytes()[:-40])
        monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((*SIZE, 3), np.uint8))
        assert f"{path}: corrupt or truncated: image file is truncated" in error(build(root))

    def test_it_stops_at_the_first_few(self, root):
        for i in range(9):
            save(root, f"{i}", (30,))
        assert error(build(root), workers=2).count("label values 30") == 5


class TestValues:
    def test_not_allowed(self, root):
        Image.fromarray(np.full(SIZE, 1000, np.uint16)).save(root / "labels/a.png")
        save(root, "b", (0, 3, 4, 200))
        message = error(build(root))
        assert "a.png: label values 1000 not allowed; allowed are 0-2, 255" in message
        assert "b.png: label values 3-4, 200 not allowed" in message
        assert "allowed are 0-1, 200" in error(build(root, ignore_index=200), num_classes=2)

    def test_as_mmseg_reduces_and_maps_them(self, root):
        class Fixed(BaseSegDataset):
            METAINFO = dict(classes=("road", "car", "sky"))

        save(root, "b", (0, 3))
        dataset = build(root, Fixed, reduce_zero_label=True, metainfo=dict(classes=("car", "sky")))
        check_dataset(dataset)
        save(root, "b", (0, 4))
        assert "label values 4 not allowed; allowed are 0-3, 255" in error(dataset)

    def test_cityscapes_has_a_hint(self, root):
        save(root, "b", (7, 33))
        dataset = build(root, CityscapesDataset, metainfo=None)
        assert "label values 33" in error(dataset)
        assert "hint: convert with the cityscapesscripts" in error(dataset)


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    loaders = {}
    for split in ("train", "val"):
        for name in "abc":
            save(tmp_path / split, name, (0, 1, 2))
        pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
        dataset = dict(type="BaseSegDataset", pipeline=pipeline, **settings(tmp_path / split))
        loaders[f"{split}_dataloader"] = dict(batch_size=2, dataset=dataset)
    return Config(loaders)


@pytest.fixture
def decoded(monkeypatch):
    calls, decode = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *args: calls.append(1) or decode(*args))
    return calls


class TestConfig:
    def test_passes_and_leaves_the_config(self, cfg, decoded):
        before = cfg.pretty_text
        check_config_data(cfg)
        assert len(decoded) == 6
        assert cfg.pretty_text == before
        cfg.val_dataloader = None
        check_config_data(cfg)

    def test_wrapped(self, cfg, tmp_path):
        inner = cfg.train_dataloader.dataset
        both = {"type": "ConcatDataset", "datasets": [inner, inner]}
        cfg.train_dataloader.dataset = {"type": "RepeatDataset", "times": 2, "dataset": both}
        check_config_data(cfg)
        shutil.rmtree(tmp_path / "train/images")
        with pytest.raises(DataError, match=r"not found: .*train/images"):
            check_config_data(cfg)

    def test_bad_label(self, cfg, tmp_path):
        save(tmp_path / "val", "a", (77,))
        for _ in range(2):  # it is not remembered as good
            with pytest.raises(DataError, match=r"val/labels/a.png: label values 77"):
                check_config_data(cfg)

    def test_classes_of_parts_and_heads(self, cfg):
        cfg.model = dict(decode_head=dict(num_classes=2))
        with pytest.raises(DataError, match=r"decode_head has num_classes=2, but .* 3 classes"):
            check_config_data(cfg)
        cfg.model.decode_head.num_classes = 3
        cfg.val_dataloader.dataset.metainfo = dict(classes=("road", "sky", "car"))
        with pytest.raises(DataError, match=r"other classes than in train_.*in another order"):
            check_config_data(cfg)


class TestMemory:
    def test_unchanged_data_is_not_decoded_again(self, cfg, decoded, tmp_path):
        check_config_data(cfg)
        assert len(list((tmp_path / "cache/tvit_seg/data_checks").iterdir())) == 2
        decoded.clear()
        check_config_data(cfg)
        assert not decoded
        save(tmp_path / "train", "orphan", (0,), image=False)
        with pytest.raises(DataError, match="1 x labels without image"):
            check_config_data(cfg)

    def test_changed_data_or_settings_are_decoded_again(self, cfg, decoded, tmp_path):
        check_config_data(cfg)
        decoded.clear()
        save(tmp_path / "val", "a", (0, 2, 1, 1, 1, 1))
        check_config_data(cfg)
        assert len(decoded) == 3
        cfg.train_dataloader.dataset.reduce_zero_label = True
        check_config_data(cfg)
        assert len(decoded) == 6

    def test_a_folder_it_cannot_write_only_warns(self, cfg, tmp_path):
        (tmp_path / "cache").write_text("a file")
        with pytest.warns(UserWarning, match="not remembered"):
            check_config_data(cfg)
