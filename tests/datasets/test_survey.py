"""All problems of a dataset at once, and its classes counted."""

import numpy as np
import pytest
from helpers.survey_data import SIZE, save, settings, survey
from mmengine.config import Config
from PIL import Image

from tvit_seg.datasets import TimmDataset
from tvit_seg.datasets.check import survey_config
from tvit_seg.datasets.survey import by_kind, survey_of


def test_counts(tmp_path):
    save(tmp_path, "a", (0, 1))
    save(tmp_path, "b", (0, 0, 0, 255))
    found = survey(tmp_path)
    assert found.problems == []
    assert found.pixels.tolist() == [40 + 60, 40, 0]
    assert found.images.tolist() == [2, 1, 0]
    assert (found.ignored, found.outside, found.read) == (20, 0, 2)
    assert found.shares.sum() == pytest.approx(100)
    assert found.remarks == ["1 classes do not occur: sky"]
    assert len(found.samples) == 2


def test_everything_at_once(tmp_path):
    save(tmp_path, "fine", (0, 1, 2))
    save(tmp_path, "value", (0, 9, 12))
    save(tmp_path, "small", (1,), size=(4, 5))
    save(tmp_path, "colour", None)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "labels/colour.png")
    save(tmp_path, "broken", (7,), image=False)
    (tmp_path / "images/broken.png").write_bytes(b"\x89PNG")
    save(tmp_path, "cut", None)
    (tmp_path / "labels/cut.png").write_bytes((tmp_path / "labels/fine.png").read_bytes()[:50])
    save(tmp_path, "alone", None)
    save(tmp_path, "orphan", (0,), image=False)
    found = survey(tmp_path)
    problems = by_kind(found.problems)
    assert [path.split("/")[-1] for path in problems["images without label"]] == ["alone.png"]
    assert [path.split("/")[-1] for path in problems["labels without image"]] == ["orphan.png"]
    texts = problems["image or label"]
    for part in (
        "value.png: label values 9, 12 not allowed; allowed are 0-2, 255",
        "small.png: label is 5x4 (width x height)",
        "colour.png: label of shape (8, 10, 3), not single-channel",
        "images/broken.png: corrupt or truncated",
        "labels/broken.png: label values 7 not allowed",
        "labels/cut.png: corrupt or truncated",
    ):
        assert any(part in text for text in texts), part
    assert len(texts) == 6
    assert [pair[0].split("/")[-1] for pair in found.samples] == ["fine.png"]
    assert found.outside == 53 + 80  # two of three values in 80 pixels, and a whole label
    assert any("one class index per pixel" in hint for hint in found.hints)


def test_labels_that_start_at_one(tmp_path):
    save(tmp_path, "a", (1, 2, 3))
    (hint,) = survey(tmp_path).hints
    assert "labels run from 1 to 3, with 3 classes; with reduce_zero_label=True" in hint
    assert "if 0 is a class" not in hint
    found = survey(tmp_path, reduce_zero_label=True)
    assert not found.problems
    assert not found.hints
    assert found.pixels.tolist() == [27, 27, 26]


def test_labels_with_zero_for_other(tmp_path):
    """As ADE20K has them: 0 is no class, and the classes are 1 to K."""
    save(tmp_path, "a", (0, 1, 2, 3, 255))
    found = survey(tmp_path)
    assert found.problems
    assert "labels run from 0 to 3, with 3 classes" in found.hints[0]
    assert "if 0 is a class as well, there are 4 classes" in found.hints[0]
    assert not survey(tmp_path, reduce_zero_label=True).hints


def test_masks_of_black_and_white(tmp_path):
    save(tmp_path, "a", (0, 255))
    found = survey(tmp_path)
    assert "labels contain only 0 and 255, and 255 is ignored" in found.problems[0].text
    assert "a mask's foreground must be stored as 1" in found.hints[0]
    assert not survey(tmp_path, ignore_index=254).hints


def test_remarks(tmp_path):
    save(tmp_path, "a", (255,))
    save(tmp_path, "b", (0, 1, 2))
    save(tmp_path, "c", None, ending=".bmp")
    found = survey(tmp_path)
    assert not found.problems
    assert "1 *.bmp" in found.remarks[0]
    assert "1 labels have ignored pixels only" in found.remarks[1]
    remarks = survey(tmp_path, reduce_zero_label=True).remarks
    assert any("ignores label 0 and makes 3 the last class" in remark for remark in remarks)


def test_labels_of_whole_images(tmp_path):
    for label, count in (("cat", 3), ("dog", 1)):
        (tmp_path / "train" / label).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f"train/{label}/{i}.png")
    (tmp_path / "train/cat/0.png").write_text("no image")
    found = survey_of(TimmDataset(str(tmp_path), "train")).run()
    assert found.classes == ("cat", "dog")
    assert found.images.tolist() == [2, 1]
    assert found.pixels is None
    assert "cat/0.png: corrupt" in by_kind(found.problems)["unreadable image"][0]
    assert found.shares.tolist() == pytest.approx([200 / 3, 100 / 3])


class TestConfig:
    def cfg(self, tmp_path, **val):
        for split in ("train", "val"):
            save(tmp_path / split, "a", (0, 1, 2))

        def loader(root, **kwargs):
            return dict(dataset=dict(type="BaseSegDataset", **settings(root, **kwargs)))

        return Config(
            dict(
                model=dict(decode_head=dict(num_classes=3)),
                train_dataloader=loader(tmp_path / "train"),
                val_dataloader=loader(tmp_path / "val", **val),
                test_dataloader=loader(tmp_path / "val", **val),
            )
        )

    def test_parts(self, tmp_path):
        found = survey_config(self.cfg(tmp_path))
        assert [part.name for part in found] == ["train", "val"]
        assert not any(part.problems or part.remarks for part in found)

    def test_classes_differ(self, tmp_path):
        cfg = self.cfg(tmp_path, metainfo=dict(classes=("road", "car", "tree", "pole")))
        train, val = survey_config(cfg)
        assert not train.problems
        problems = by_kind(val.problems)
        assert "not in both: pole, sky, tree" in problems["classes"][0]
        assert "decode_head has num_classes=3" in problems["model"][0]

    def test_images_in_both(self, tmp_path):
        cfg = self.cfg(tmp_path)
        cfg.val_dataloader = cfg.train_dataloader
        assert "1 images are in train as well" in survey_config(cfg)[1].remarks

    def test_a_missing_part(self, tmp_path):
        cfg = self.cfg(tmp_path)
        cfg.train_dataloader.dataset.data_root = str(tmp_path / "nowhere")
        train, val, *_ = survey_config(cfg)
        assert "not found" in by_kind(train.problems)["data"][0]
        assert val.samples
