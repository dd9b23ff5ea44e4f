"""Any mmseg dataset, its wrappers, and TimmDataset: corrupt images are named or passed over."""

import pickle
import shutil

import numpy as np
import pytest
from helpers.classification import image_folder
from mmengine.config import Config
from PIL import Image

from tvit_seg.datasets import SkipCorrupt, check_config_data
from tvit_seg.datasets.corrupt import build_guarded
from tvit_seg.errors import CorruptImageError, DataError

PIPELINE = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    """Eight noisy images with labels, in two splits."""
    root, rng = tmp_path / "data", np.random.default_rng(0)
    for split in ("train", "val"):
        for kind, suffix in (("img_dir", ".jpg"), ("ann_dir", ".png")):
            (root / kind / split).mkdir(parents=True)
            for i in range(8):
                shape = (24, 32, 3) if kind == "img_dir" else (24, 32)
                pixels = rng.integers(0, 5, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(root / kind / split / f"{i}{suffix}")
    return root


def settings(root, kind="CamVidDataset", split="train", **kwargs):
    suffixes = dict(img_suffix=".jpg", seg_map_suffix=".png")
    prefix = dict(img_path=f"img_dir/{split}", seg_map_path=f"ann_dir/{split}")
    if kind == "ADE20KDataset":
        suffixes = {}
    options = dict(data_root=str(root), data_prefix=prefix, pipeline=PIPELINE, **suffixes)
    return dict(type=kind, **options, **kwargs)


def truncate(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


@pytest.mark.parametrize(
    ("kind", "file"),
    [("CamVidDataset", "img_dir/train/3.jpg"), ("ADE20KDataset", "ann_dir/train/3.png")],
)
def test_mmseg_datasets(root, kind, file):
    bad = truncate(root / file)
    with pytest.raises(CorruptImageError, match=f"{bad}: corrupt or truncated"):
        build_guarded(settings(root, kind))[3]
    dataset = build_guarded(settings(root, kind, skip_corrupt=True))
    sample = dataset[3]["data_samples"]
    assert all(text.startswith(f"{bad}: corrupt or truncated") for text in sample.skipped)
    assert sample.img_path != str(bad)
    assert "skipped" not in dataset[2]["data_samples"]
    assert len(dataset) == 8
    assert dataset.metainfo["classes"]


def test_labels_of_sixteen_bits(root):
    """mmseg would read class 300 as 44."""
    path = root / "ann_dir/train/3.png"
    Image.fromarray(np.full((24, 32), 9, np.uint16)).save(path)
    dataset = build_guarded(settings(root))
    assert (dataset[3]["data_samples"].gt_sem_seg.data == 9).all()
    Image.fromarray(np.full((24, 32), 300, np.uint16)).save(path)
    with pytest.raises(DataError, match=f"{path}: label value 300 not allowed"):
        dataset[3]
    with pytest.raises(DataError, match=f"{path}: label value 300 not allowed"):
        build_guarded(settings(root, skip_corrupt=True))[3]


def test_wrappers(root):
    bad = truncate(root / "img_dir/train/3.jpg")

    def wrap(inner, **kwargs):
        both = dict(type="ConcatDataset", datasets=[inner])
        return dict(type="RepeatDataset", dataset=both, times=2, **kwargs)

    with pytest.raises(CorruptImageError, match=str(bad)):
        build_guarded(wrap(settings(root)))[3]
    inside = wrap(settings(root, skip_corrupt=True))
    for cfg in (inside, wrap(settings(root), skip_corrupt=True)):
        assert str(bad) in build_guarded(cfg)[3]["data_samples"].skipped[0]


def test_labelled_images(tmp_path):
    root = image_folder(tmp_path / "images")
    bad = truncate(root / "train/bee/1.png")
    cfg = dict(type="TimmDataset", data_root=str(root), transform=dict(input_size=8))
    with pytest.raises(CorruptImageError, match=str(bad)):
        build_guarded(cfg)[5]
    sample = build_guarded(dict(cfg, skip_corrupt=True))[5]
    assert str(bad) in sample["data_samples"].skipped[0]


def test_what_only_decoding_shows(root):
    """A PNG whose ends are fine and whose middle is not."""
    bad = root / "ann_dir/train/3.png"
    content = bytearray(bad.read_bytes())
    content[50:60] = bytes(10)
    bad.write_bytes(content)
    with pytest.raises(CorruptImageError, match=f"{bad}: corrupt"):
        build_guarded(settings(root))[3]


def test_formats_that_only_a_transform_knows(root):
    (root / "img_dir/train/3.jpg").write_bytes(b"\x93NUMPY" + bytes(100))

    class Loads:
        def __call__(self, data):
            return {**data, "img": 7}

    dataset = build_guarded({**settings(root), "pipeline": [dict(type=Loads)]})
    assert dataset[3]["img"] == 7


def test_errors_of_transforms_stay_as_they_are(root):
    pipeline = [*PIPELINE[:2], dict(type="RandomCrop", crop_size=(8, 8)), dict(type="Normalize",
                mean=[0], std=[1, 2], to_rgb=False)]  # fmt: skip
    with pytest.raises(Exception, match=r".") as found:
        build_guarded({**settings(root), "pipeline": pipeline})[3]
    assert not isinstance(found.value, DataError)


def test_a_folder_that_vanishes_ends_training(root):
    dataset = build_guarded(settings(root, skip_corrupt=True))
    shutil.rmtree(root)
    with pytest.raises(DataError, match=r"img_dir/train/3\.jpg cannot be read: No such file") as e:
        dataset[3]
    assert not isinstance(e.value, CorruptImageError)


def test_only_corrupt_images_end_training(root):
    for path in (root / "img_dir/train").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"100 corrupt images in a row, .*: not an image"):
        build_guarded(settings(root, skip_corrupt=True))[0]


def test_it_can_be_pickled(root):
    dataset = pickle.loads(pickle.dumps(build_guarded(settings(root, skip_corrupt=True))))
    assert isinstance(dataset, SkipCorrupt)
    assert len(dataset) == 8


class TestCheck:
    """The data check goes by the same rules."""

    @staticmethod
    def config(root, **train):
        return Config(
            dict(
                train_dataloader=dict(dataset=settings(root, **train)),
                val_dataloader=dict(dataset=settings(root, split="val")),
            )
        )

    def test_corrupt_images_are_listed_and_counted(self, root):
        bad = truncate(root / "img_dir/train/3.jpg")
        with pytest.raises(DataError, match=f"1 x image or label\n  {bad}"):
            check_config_data(self.config(root))
        for _ in range(2):  # it is not remembered as good
            with pytest.warns(UserWarning, match=f"skips .*\n1 x image or label\n  {bad}"):
                check_config_data(self.config(root, skip_corrupt=True))

    def test_other_mistakes_are_still_mistakes(self, root):
        truncate(root / "img_dir/train/3.jpg")
        Image.new("L", (32, 24), 99).save(root / "ann_dir/train/2.png")
        with pytest.raises(DataError, match="label values 99"):
            check_config_data(self.config(root, skip_corrupt=True))

    def test_not_in_evaluation(self, root):
        truncate(root / "img_dir/val/3.jpg")
        cfg = self.config(root, skip_corrupt=True)
        with pytest.raises(DataError, match=r"val/3\.jpg: corrupt"):
            check_config_data(cfg)
