import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from tvit_seg.datasets import scenes
from tvit_seg.datasets.scenes import CLASSES, PALETTE, SceneDataset, render_scene, write_scenes
from tvit_seg.errors import DataError

PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "PackSegInputs", "meta_keys": ("img_path", "seg_map_path", "difficulty")},
]
TRAIN = {"img_path": "img_dir/train", "seg_map_path": "ann_dir/train"}
TOOL = str(Path(__file__).resolve().parents[2] / "tools" / "make_scenes.py")


def draw(difficulty, num=60, **kwargs):
    return [render_scene(np.random.default_rng((7, i)), difficulty, **kwargs) for i in range(num)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root, num_train=10, num_val=4, size=(40, 56), seed=3)
    return root


@pytest.mark.parametrize(("difficulty", "size"), [(0, (32, 75)), (1, (90, 33))])
def test_scene_is_determined_by_its_generator(difficulty, size):
    (image, label), (again, label_again), (other, _) = (
        render_scene(np.random.default_rng(seed), difficulty, size) for seed in (1, 1, 2)
    )
    assert image.shape == (*size, 3)
    assert label.shape == size
    assert image.dtype == label.dtype == np.uint8
    assert label.max() < len(CLASSES)
    assert (image == again).all()
    assert (label == label_again).all()
    assert (image != other).any()


@pytest.mark.parametrize("difficulty", [0, 1])
def test_every_class_appears(difficulty):
    labels = np.stack([label for _, label in draw(difficulty)])
    assert np.unique(labels).tolist() == list(range(len(CLASSES)))
    assert len({tuple(colour) for colour in PALETTE}) == len(CLASSES)


def test_easy_scene_is_one_whole_object():
    for _, label in draw(0):
        assert len(np.unique(label)) == 2
        assert cv2.connectedComponents((label > 0).astype(np.uint8))[0] == 2
        assert not (label[[0, -1]].any() or label[:, [0, -1]].any())


def test_difficulty_shows_in_the_pixels():
    def contrast(image, label):
        return np.linalg.norm(image[label > 0].mean(0) - image[label == 0].mean(0))

    measures = {
        "contrast": (contrast, -1),
        "classes": (lambda image, label: len(np.unique(label)), 1),
        "texture": (lambda image, label: image[label == 0].std(0).mean(), 1),
    }
    stages = [draw(difficulty) for difficulty in (0, 0.4, 0.5, 0.6, 1)]
    for name, (measure, sign) in measures.items():
        values = [np.mean([measure(*scene) for scene in stage]) for stage in stages]
        assert (sign * np.diff(values) > 0).all(), (name, values)


def test_hue_tells_the_class_only_when_it_is_easy():
    def hue_error(difficulty):
        errors = []
        for image, label in draw(difficulty):
            for index in np.unique(label[label > 0]):
                hue = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[label == index, 0].astype(float)
                expected = (index - 1) * 30
                errors.append(np.median(np.abs((hue - expected + 90) % 180 - 90)))
        return np.mean(errors)

    assert hue_error(0) < 8
    assert hue_error(1) > 30


def test_stripes_tell_the_class_only_when_it_is_hard():
    def right(difficulty):
        hits = []
        for image, label in draw(difficulty, size=(96, 96)):
            grey = image.mean(2)
            for index in np.unique(label[label > 0]):
                mask = label == index
                spectrum = np.abs(np.fft.fft2(np.where(mask, grey - grey[mask].mean(), 0)))
                y, x = np.meshgrid(*2 * [np.fft.fftfreq(96, 1 / 96)], indexing="ij")
                spectrum[(np.hypot(x, y) < 8) | (np.hypot(x, y) > 12)] = 0
                row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
                angle = np.arctan2(y[row, column], x[row, column]) % np.pi
                found = round(angle / (np.pi / 6)) % 6 + 1
                hits.append(found == index)
        return np.mean(hits)

    assert right(0) < 0.5
    assert right(1) > 0.7


def test_written_scenes_come_back(written):
    index = json.loads((written / "scenes.json").read_text())
    with DefaultScope.overwrite_default_scope("mmseg"):
        dataset = SceneDataset(str(written), data_prefix=TRAIN, pipeline=PIPELINE)
    assert len(dataset) == 10
    for i in range(len(dataset)):
        item = dataset[i]
        sample = item["data_samples"]
        difficulty = sample.metainfo["difficulty"]
        assert difficulty == index["difficulty"][f"train/{i:06d}"]
        image, label = render_scene(np.random.default_rng((3, 0, i)), difficulty, (40, 56))
        assert (item["inputs"].numpy() == image.transpose(2, 0, 1)).all()
        assert (sample.gt_sem_seg.data[0].numpy() == label).all()


def test_difficulties_are_spread_evenly(written):
    index = json.loads((written / "scenes.json").read_text())["difficulty"]
    assert len(index) == 14
    for split, num in (("train", 10), ("val", 4)):
        values = [value for key, value in index.items() if key.startswith(split)]
        assert sorted(int(value * num) for value in values) == list(range(num))
        assert values != sorted(values)


def test_same_recipe_is_left_alone_and_another_refused(written, monkeypatch):
    monkeypatch.setattr(scenes, "render_scene", None)
    write_scenes(written, num_train=10, num_val=4, size=(40, 56), seed=3)
    with pytest.raises(FileExistsError, match=r"'seed': 3.*'seed': 4.*remove"):
        write_scenes(written, num_train=10, num_val=4, size=(40, 56), seed=4)
    with pytest.raises(FileExistsError, match="None"):  # a folder of something else
        write_scenes(written / "img_dir", 1, 1)


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def fail_midway(*args):
        calls.append(args)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return render_scene(*args)

    monkeypatch.setattr(scenes, "render_scene", fail_midway)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "scenes", num_train=10, num_val=4, size=(32, 32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"num_val": 0}, {"size": (128, 31)}])
def test_wrong_recipe(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        write_scenes(tmp_path / "scenes", **wrong)


def test_missing_scenes_say_what_to_run(tmp_path):
    with pytest.raises(DataError, match=r"python tools/make_scenes\.py"):
        SceneDataset(str(tmp_path / "nowhere"), data_prefix=TRAIN)


def test_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["--preview", "sheet.png", "--size=32"],
        ["scenes", "--num-train=2", "--num-val=1", "--size=32"],
    ):
        monkeypatch.setattr(sys, "argv", [TOOL, *arguments])
        runpy.run_path(TOOL, run_name="__main__")
    assert cv2.imread("sheet.png").shape == (9 * 32, 12 * 32, 3)
    assert len(list(tmp_path.glob("scenes/*_dir/*/*.png"))) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"scenes", "sheet.png"}
