import os
import shutil

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmseg.datasets import BaseSegDataset, CityscapesDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from tvit_seg.datasets._sample_check import allowed_values
from tvit_seg.datasets.camvid import CamVidDataset
from tvit_seg.datasets.check import check_config_data, check_dataset
from tvit_seg.errors import DataError

SIZE = (24, 32)
PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "RandomCrop", "crop_size": (16, 16)},
    {"type": "PackSegInputs"},
]


def save_image(path, size=SIZE, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def save_label(path, values=(0, 10, 255), size=SIZE, dtype=np.uint8):
    Image.fromarray(np.resize(np.array(values, dtype), size)).save(path)


def make(root, splits=("train",), count=3, image=".jpg", label=".png"):
    for split in splits:
        images, labels = root / "img_dir" / split, root / "ann_dir" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for i in range(count):
            save_image(images / f"{i}{image}", seed=i)
            save_label(labels / f"{i}{label}")
    return root


def settings(root, split="train", **kwargs):
    prefix = {"img_path": f"img_dir/{split}", "seg_map_path": f"ann_dir/{split}"}
    return dict(data_root=str(root), data_prefix=prefix, **kwargs)


def build(root, cls=CamVidDataset, serialize_data=False, **kwargs):
    # Serialising collects garbage, a fifth of a second each time.
    return cls(**settings(root, serialize_data=serialize_data, **kwargs))


@pytest.fixture
def root(tmp_path):
    return make(tmp_path / "data")


@pytest.fixture
def image(root):
    return root / "img_dir" / "train" / "1.jpg"


@pytest.fixture
def label(root):
    return root / "ann_dir" / "train" / "1.png"


def error(dataset, **kwargs):
    with pytest.raises(DataError) as caught:
        check_dataset(dataset, **kwargs)
    return str(caught.value)


class TestGoodData:
    @pytest.mark.parametrize("serialize", [False, True])
    @pytest.mark.parametrize("lazy", [False, True])
    def test_passes(self, root, serialize, lazy):
        assert check_dataset(build(root, serialize_data=serialize, lazy_init=lazy)) is None

    def test_palette_and_one_bit_labels_pass(self, root, label):
        grey = Image.open(label)
        grey.load()
        palette = grey.copy()
        palette.putpalette(list(range(256)) * 3)
        assert palette.mode == "P"
        palette.save(label)
        grey.point(lambda value: value == 10, "1").save(label.with_name("2.png"))
        check_dataset(build(root))

    def test_orientation_counts_as_opencv_decodes(self, root, image, label):
        exif = Image.Exif()
        exif[0x0112] = 6  # a quarter turn
        Image.open(image).save(image, exif=exif)
        save_label(label, size=SIZE[::-1])
        check_dataset(build(root))

    def test_bytes_after_the_end_pass(self, root, image):
        image.write_bytes(image.read_bytes() + b"\0" * 64)
        check_dataset(build(root))

    def test_wrappers_are_followed(self, root, label):
        dataset = ConcatDataset([build(root), build(root)])
        check_dataset(RepeatDataset(build(root), 2))
        check_dataset(dataset)
        save_label(label, values=(11,))
        assert "label values 11" in error(dataset)
        assert "label values 11" in error(RepeatDataset(build(root), 2))

    def test_other_datasets_are_refused(self):
        with pytest.raises(TypeError, match="list"):
            check_dataset([])


class TestSubsets:
    def test_indices_leave_other_files_out(self, root, label):
        label.unlink()
        (root / "img_dir" / "train" / "2.jpg").unlink()
        check_dataset(build(root, indices=1))
        check_dataset(build(root, indices=[0], lazy_init=True))

    def test_indices_leave_nothing(self, root):
        message = error(build(root, indices=[], serialize_data=True, lazy_init=True))
        assert "of 3 images, indices or a filter leave none" in message

    def test_name_list_leaves_other_files_out(self, root, label):
        label.unlink()
        (root / "train.txt").write_text("0\n2\n")
        check_dataset(build(root, ann_file="train.txt"))

    def test_name_list_with_a_wrong_name(self, root):
        (root / "train.txt").write_text("0\nnobody\n")
        message = error(build(root, ann_file="train.txt"))
        assert "1 images and 1 labels do not pair up" in message
        assert "1 images not found" in message and "nobody.jpg" in message

    def test_filter_is_respected(self, root, label):
        class Filtered(CamVidDataset):
            def filter_data(self):
                return [info for info in self.data_list if os.path.exists(info["seg_map_path"])]

        label.unlink()
        check_dataset(build(root, Filtered))


class TestListing:
    def test_empty_folder(self, root):
        message = error(build(root, img_suffix=".jpeg", serialize_data=True, lazy_init=True))
        assert "CamVidDataset is empty" in message
        assert f"{root}/img_dir/train/*.jpeg" in message and f"{root}/ann_dir/train" in message

    def test_missing_folder(self, root):
        shutil.rmtree(root / "ann_dir")
        message = error(build(root))
        assert f"not found: '{root}/ann_dir/train'" in message and "expected layout" in message

    def test_no_label_folder(self, root):
        prefix = {"img_path": "img_dir/train"}
        assert "seg_map_path" in error(CamVidDataset(data_root=str(root), data_prefix=prefix))

    def test_image_without_label(self, root, label):
        label.unlink()
        message = error(build(root))
        assert "3 images and 2 labels" in message
        assert "1 images without label:" in message and "1.jpg" in message

    def test_label_without_image(self, root, image):
        image.unlink()
        message = error(build(root))
        assert "2 images and 3 labels" in message
        assert "1 labels without image:" in message and "1.png" in message

    def test_only_the_first_names_are_shown(self, tmp_path):
        root = make(tmp_path, count=8)
        for path in (root / "ann_dir" / "train").iterdir():
            path.unlink()
        message = error(build(root))
        assert "8 images without label" in message and "... and 3 more" in message
        assert message.count(".jpg\n") == 5

    def test_no_classes(self, root):
        assert "has no classes" in error(build(root, BaseSegDataset))
        check_dataset(build(root, BaseSegDataset), num_classes=11)


class TestFiles:
    def test_sizes_differ(self, root, label):
        save_label(label, size=(12, 40))
        message = error(build(root))
        assert f"{label}: label is 40x12" in message and "1.jpg is 32x24" in message

    @pytest.mark.parametrize("kept", [0, 2, 0.5, 0.9, -2])
    @pytest.mark.parametrize("suffix", [".jpg", ".png"])
    def test_truncated_image(self, tmp_path, suffix, kept):
        root = make(tmp_path, image=suffix)
        path = root / "img_dir" / "train" / f"1{suffix}"
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * kept) if 0 < kept < 1 else kept])
        assert f"{path}: corrupt" in error(build(root, img_suffix=suffix))

    def test_grey_filled_jpeg_is_found_where_opencv_accepts_it(self, root, image, monkeypatch):
        data = image.read_bytes()
        image.write_bytes(data[:-40])  # inside the pixels
        whole = np.zeros((*SIZE, 3), np.uint8)
        monkeypatch.setattr(cv2, "imdecode", lambda *_: whole)
        assert f"{image}: corrupt or truncated: image file is truncated" in error(build(root))

    def test_truncated_label(self, root, label):
        noise = np.random.default_rng(0).integers(0, 11, SIZE, dtype=np.uint8)
        Image.fromarray(noise).save(label)
        data = label.read_bytes()
        label.write_bytes(data[: len(data) // 2])
        assert f"{label}: corrupt or truncated" in error(build(root))

    def test_corrupt_png_image(self, tmp_path):
        root = make(tmp_path, image=".png")
        path = root / "img_dir" / "train" / "1.png"
        data = bytearray(path.read_bytes())
        data[200:208] = b"\0" * 8
        path.write_bytes(bytes(data))
        assert f"{path}: corrupt" in error(build(root, img_suffix=".png"))

    def test_no_image_at_all(self, root, image, label):
        image.write_text("<html>404</html>")
        label.write_text("<html>404</html>")
        assert f"{image}: corrupt" in error(build(root))

    def test_colour_coded_label(self, root, label):
        save_image(label)
        message = error(build(root))
        assert f"{label}: label of shape (24, 32, 3), not single-channel" in message
        assert "hint: a label holds one class index per pixel" in message

    def test_several_files_at_once(self, tmp_path):
        root = make(tmp_path, count=9)
        for i in range(7):
            save_label(root / "ann_dir" / "train" / f"{i}.png", values=(30,))
        message = error(build(root), workers=2)
        assert "7 of 9 samples" in message and "... and 2 more" in message
        assert message.count("label values 30") == 5


class TestValues:
    def test_too_large(self, root, label):
        save_label(label, values=(0, 11, 12, 200))
        message = error(build(root))
        assert f"{label}: label values 11-12, 200 not allowed" in message
        assert "allowed are 0-10, 255 (255 is ignored)" in message and "hint" not in message

    def test_num_classes_given(self, root):
        assert "label values 10 not allowed; allowed are 0-9, 255" in error(
            build(root), num_classes=10
        )

    def test_other_ignore_index(self, root):
        assert "label values 255 not allowed" in error(build(root, ignore_index=200))

    def test_more_than_eight_bits(self, root, label):
        save_label(label, values=(0, 256, 1000), dtype=np.uint16)
        assert "label values 256, 1000 not allowed" in error(build(root))

    def test_reduce_zero_label(self, root, label):
        save_label(label, values=(0, 11))
        check_dataset(build(root, reduce_zero_label=True))
        save_label(label, values=(0, 12))
        assert "label values 12 not allowed; allowed are 0-11, 255" in error(
            build(root, reduce_zero_label=True)
        )

    def test_label_map(self, root, label):
        subset = build(root, metainfo={"classes": ("road", "car")})
        check_dataset(subset)
        save_label(label, values=(11,))
        assert "label values 11 not allowed" in error(subset)

    def test_cityscapes_hint(self, tmp_path):
        root = make(tmp_path, image="_leftImg8bit.png", label="_gtFine_labelTrainIds.png")
        check_dataset(build(root, CityscapesDataset))
        save_label(root / "ann_dir" / "train" / "0_gtFine_labelTrainIds.png", values=(7, 33))
        message = error(build(root, CityscapesDataset))
        assert (
            "label values 33" in message and "hint: convert with the cityscapesscripts" in message
        )

    @pytest.mark.parametrize("reduce", [False, True])
    @pytest.mark.parametrize("classes", [None, ("road", "car", "sky")])
    def test_agrees_with_mmseg(self, root, label, reduce, classes):
        metainfo = {"classes": classes} if classes else None
        dataset = build(root, metainfo=metainfo, reduce_zero_label=reduce)
        Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(label)
        loaded = LoadAnnotations()(dataset.get_data_info(1))["gt_seg_map"].ravel()
        count = len(dataset.metainfo["classes"])
        expected = (loaded < count) | (loaded == 255)
        np.testing.assert_array_equal(allowed_values(dataset, count), expected)


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = make(tmp_path / "data", splits=("train", "val"))
    loaders = {}
    for split in ("train", "val"):
        dataset = dict(type="CamVidDataset", pipeline=PIPELINE, **settings(root, split))
        loaders[f"{split}_dataloader"] = {"batch_size": 2, "num_workers": 0, "dataset": dataset}
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
        assert len(decoded) == 6 and cfg.pretty_text == before

    def test_without_val(self, cfg, decoded):
        cfg.val_dataloader = None
        check_config_data(cfg)
        assert len(decoded) == 3

    def test_wrapped(self, cfg, tmp_path):
        inner = cfg.train_dataloader.dataset
        both = {"type": "ConcatDataset", "datasets": [inner, inner]}
        cfg.train_dataloader.dataset = {"type": "RepeatDataset", "times": 2, "dataset": both}
        check_config_data(cfg)
        shutil.rmtree(tmp_path / "data" / "img_dir" / "train")
        with pytest.raises(DataError, match=r"not found: .*img_dir/train"):
            check_config_data(cfg)

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_bad_label_in_either(self, cfg, tmp_path, split):
        save_label(tmp_path / "data" / "ann_dir" / split / "0.png", values=(77,))
        with pytest.raises(DataError, match=rf"ann_dir/{split}/0.png: label values 77"):
            check_config_data(cfg)

    def test_missing_folder(self, cfg, tmp_path):
        cfg.train_dataloader.dataset.data_root = str(tmp_path / "nowhere")
        with pytest.raises(DataError, match=r"not found: .*nowhere/img_dir/train.*expected layout"):
            check_config_data(cfg)

    def test_empty_folder(self, cfg):
        cfg.train_dataloader.dataset.img_suffix = ".tif"
        with pytest.raises(DataError, match=r"is empty; searched images .*img_dir/train/\*\.tif"):
            check_config_data(cfg)

    def test_missing_name_list(self, cfg):
        cfg.val_dataloader.dataset.ann_file = "val.txt"
        with pytest.raises(DataError, match=r"not found: .*val\.txt"):
            check_config_data(cfg)


class TestMemory:
    def test_unchanged_data_is_not_decoded_again(self, cfg, decoded, tmp_path):
        check_config_data(cfg)
        assert (tmp_path / "cache" / "tvit_seg" / "data_checks.json").exists()
        decoded.clear()
        check_config_data(cfg)
        assert not decoded

    def test_changed_data_is_decoded_again(self, cfg, decoded, tmp_path):
        check_config_data(cfg)
        decoded.clear()
        save_label(tmp_path / "data" / "ann_dir" / "val" / "0.png", values=(3, 4))
        check_config_data(cfg)
        assert len(decoded) == 3
        save_label(tmp_path / "data" / "ann_dir" / "val" / "0.png", values=(99,))
        with pytest.raises(DataError, match="label values 99"):
            check_config_data(cfg)

    def test_other_classes_are_checked_again(self, cfg, decoded):
        check_config_data(cfg)
        decoded.clear()
        cfg.train_dataloader.dataset.reduce_zero_label = True
        check_config_data(cfg)
        assert len(decoded) == 3

    def test_bad_data_is_not_remembered(self, cfg, tmp_path):
        save_label(tmp_path / "data" / "ann_dir" / "train" / "0.png", values=(99,))
        for _ in range(2):
            with pytest.raises(DataError, match="label values 99"):
                check_config_data(cfg)

    def test_pairs_are_checked_even_if_remembered(self, cfg, tmp_path):
        check_config_data(cfg)
        save_label(tmp_path / "data" / "ann_dir" / "train" / "extra.png")
        with pytest.raises(DataError, match="1 labels without image"):
            check_config_data(cfg)

    def test_a_folder_it_cannot_write_only_warns(self, cfg, decoded, tmp_path):
        (tmp_path / "cache").write_text("a file")
        with pytest.warns(UserWarning, match="not remembered"):
            check_config_data(cfg)
        assert len(decoded) == 6

    def test_a_broken_memory_only_warns(self, cfg, decoded, tmp_path):
        memory = tmp_path / "cache" / "tvit_seg" / "data_checks.json"
        memory.parent.mkdir(parents=True)
        memory.write_text("{")
        with pytest.warns(UserWarning, match="earlier data checks are unknown"):
            check_config_data(cfg)
        decoded.clear()
        check_config_data(cfg)
        assert not decoded
