"""Image folders and tar files, and what is said about bad ones."""

import tarfile

import numpy as np
import pytest
import torch
from helpers.classification import CLASSES, image_folder
from mmengine.config import Config
from PIL import Image
from timm.data import IterableImageDataset
from torchvision.datasets import ImageFolder

from tvit_seg.datasets import TimmDataset, check_config_data, check_dataset
from tvit_seg.datasets.check import require_data
from tvit_seg.errors import ConfigError, DataError

TRAIN = dict(input_size=8, is_training=True, auto_augment="rand-m9-mstd0.5-inc1")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    """Two splits of three classes with four images of 12 x 10 pixels each."""
    return image_folder(tmp_path / "images")


def config(root, num_classes=3):
    def loader(split):
        data = dict(type="TimmDataset", data_root=str(root), split=split, transform=TRAIN)
        return dict(dataset=data)

    return Config(
        dict(
            model=dict(backbone=dict(num_classes=num_classes)),
            train_dataloader=loader("train"),
            val_dataloader=loader("val"),
            test_dataloader=loader("val"),
        )
    )


def test_images_and_labels(root):
    dataset = TimmDataset(str(root), "val")
    assert len(dataset) == 12
    assert dataset.metainfo == dict(classes=CLASSES)
    item = dataset[5]
    pixels = np.asarray(Image.open(root / "val" / "bee" / "1.png"))
    assert torch.equal(item["inputs"], torch.from_numpy(pixels.copy()).permute(2, 0, 1))
    assert item["data_samples"].gt_label == 1
    assert dataset.filename(5) == str(root / "val" / "bee" / "1.png")


@pytest.mark.parametrize("place", ["train/bee/cow/9.png", "train/9.png"])
def test_images_outside_the_class_folders(root, place):
    """timm would take the name of the innermost folder for a class."""
    path = root / place
    path.parent.mkdir(exist_ok=True)
    (root / "train" / "bee" / "0.png").rename(path)
    with pytest.raises(DataError, match=rf"lie in {path.parent}; expected .*train/CLASS/IMAGE"):
        TimmDataset(str(root), "train")


def test_tar_file(root, tmp_path):
    with tarfile.open(tmp_path / "train.tar", "w") as file:
        file.add(root / "train", arcname=".")
    packed = TimmDataset(str(tmp_path / "train.tar"), num_classes=3)
    folder = TimmDataset(str(root), "train")
    assert packed.metainfo == folder.metainfo
    for a, b in zip(packed, folder, strict=True):
        assert torch.equal(a["inputs"], b["inputs"])
        assert a["data_samples"].gt_label == b["data_samples"].gt_label
    check_dataset(packed)


def test_a_dataset_without_a_reader(root, monkeypatch):
    source, expected = ImageFolder(str(root / "val")), TimmDataset(str(root), "val")
    monkeypatch.setattr("tvit_seg.datasets.timm_dataset.create_dataset", lambda *a, **k: source)
    dataset = TimmDataset(str(root), name="torch/some", num_classes=3)
    assert dataset.metainfo == dict(classes=CLASSES)
    assert torch.equal(dataset[5]["inputs"], expected[5]["inputs"])
    assert dataset.filename(5) == "ImageFolder[5]"
    check_dataset(dataset)


def test_streams_are_refused(root, monkeypatch):
    source = IterableImageDataset("", reader=object())
    monkeypatch.setattr("tvit_seg.datasets.timm_dataset.create_dataset", lambda *a, **k: source)
    with pytest.raises(ConfigError, match="wds/some"):
        TimmDataset(str(root), name="wds/some")


def test_good_data_passes_and_is_remembered(root, monkeypatch):
    check_config_data(config(root))
    require_data(config(root))
    monkeypatch.setattr(TimmDataset, "read", None)
    check_config_data(config(root))


def test_an_unreadable_image_is_named(root):
    bad = root / "train" / "bee" / "2.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(DataError, match=r"bee/2.png: corrupt or truncated"):
        TimmDataset(str(root), "train")[6]
    (root / "train" / "ant" / "0.png").write_text("text")
    with pytest.raises(DataError, match=r"2 x unreadable image\n.*ant/0.png.*not an image"):
        check_config_data(config(root))


def test_an_empty_class_folder_is_named(root):
    for path in (root / "val" / "bee").iterdir():
        path.unlink()
    for check in (check_config_data, require_data):
        with pytest.raises(DataError, match=r"val: 1 of 3 class folders hold no image .*bee"):
            check(config(root))


def test_a_missing_class_folder_is_named(root):
    (root / "val" / "bee").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"num_classes=3, but .* has 2 classes"):
        require_data(config(root))
    (root / "val" / "fly").mkdir()
    Image.new("RGB", (4, 4)).save(root / "val" / "fly" / "0.png")
    with pytest.raises(DataError, match=r"not in both: bee, fly"):
        check_config_data(config(root))


def test_another_number_of_classes(root):
    with pytest.raises(DataError, match=r"num_classes=10, but .* has 3 classes"):
        check_config_data(config(root, num_classes=10))
    with pytest.raises(DataError, match=r"\(train\) has 3 classes, but num_classes=4"):
        TimmDataset(str(root), "train", num_classes=4)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "not found: .*nowhere"),
        ("images/train/ant/0.png", "Found 0 images"),
        ("images/train", "not found: .*train/train.* folders in .*: ant, bee, cow"),
    ],
)
def test_wrong_places(root, place, message):
    with pytest.raises(DataError, match=message):
        TimmDataset(str(root.parent / place), "train")
