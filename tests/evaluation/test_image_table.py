"""Pixel counts of each image as a file, and what several trainings say together."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.builders import SLIDE, classifier, segmentor

from tvit_seg.errors import ConfigError, DataError
from tvit_seg.evaluation.image_table import (
    ImageTable,
    check_whole_images,
    compare,
    relative_area,
    write_image_table,
)
from tvit_seg.evaluation.metrics import segmentation_quality

IMAGES, CLASSES = 12, 3


def counts(right):
    """Areas (4, K) with ``right`` (K,) of 100 pixels of each class correct."""
    hundred = np.full(CLASSES, 100)
    return np.stack((right, 200 - right, hundred, hundred))


def sweep(seed=0, gain=20, images=IMAGES, windows=1):
    rng = np.random.default_rng(seed)
    found = []
    for index in range(images):
        right = rng.integers(30, 60, CLASSES)
        entropy = np.full((windows, 2), index / images, np.float32)
        predictions = SimpleNamespace(entropy=entropy, gmacs=np.array([1.0, 3.0]))
        # only images of high entropy gain
        scores = np.stack((counts(right), counts(right + gain * (index >= images / 2))))
        found.append(SimpleNamespace(predictions=predictions, stage_scores=scores))
    return SimpleNamespace(images=found)


@pytest.fixture
def read(tmp_path):
    def read(*args, **sweeps):
        path = tmp_path / "tables" / "images.csv"
        write_image_table(path, *args, **sweeps)
        return ImageTable.read(path)

    return read


def test_counts_survive_the_file(read):
    found = sweep()
    table = read({0.5: found, 1.0: found})
    assert table.keep_ratios == [1.0, 0.5]
    scores = np.stack([image.stage_scores for image in found.images], 1)
    assert (table.counts == scores).all()
    assert table.entropy == pytest.approx([i / IMAGES for i in range(IMAGES)])


def test_settings_between_one_stage_and_always_thinking(read):
    found = sweep()
    rows = compare([read({1.0: found})])
    assert [row["share"] for row in rows] == [0, 0.25, 0.5, 0.75, 1]
    for row, stage in ((rows[0], 0), (rows[-1], 1)):
        summed = sum(image.stage_scores[stage] for image in found.images)
        assert row["mIoU"] == pytest.approx(segmentation_quality(summed)["mIoU"])
        assert row["to_line"] == pytest.approx(0)
    assert [row["gmacs"] for row in rows] == pytest.approx([1, 1.5, 2, 2.5, 3])
    assert rows[-1]["cost"] == 100 and rows[-1]["to_always"] == 0
    half = rows[2]  # all who gain think
    assert half["to_always"] == pytest.approx(0)
    assert 0 < half["to_line.low"] <= half["to_line"] <= half["to_line.high"]


def test_trainings_are_averaged(read):
    one, other = read({1.0: sweep(0)}), read({1.0: sweep(1)})
    rows = [compare(tables)[2] for tables in ([one], [other], [one, other])]
    assert rows[2]["mIoU"] == pytest.approx((rows[0]["mIoU"] + rows[1]["mIoU"]) / 2)
    assert rows[2]["spread"] == pytest.approx(abs(rows[0]["mIoU"] - rows[1]["mIoU"]))


def test_keep_ratios_are_compared_with_always_thinking_on_all_tokens(read):
    rows = compare([read({1.0: sweep(gain=20), 0.5: sweep(gain=10)})])
    assert [row["keep_ratio"] for row in rows] == [1.0] * 5 + [0.5] * 4
    assert rows[-1]["to_always"] < 0 < rows[-1]["mIoU"] - rows[0]["mIoU"]


def test_area_of_a_perfect_order(read):
    area, low, high = relative_area([read({1.0: sweep()})])
    assert area == pytest.approx(1, abs=0.15)
    assert low <= area <= high


def test_bad_input(read, tmp_path):
    with pytest.raises(ConfigError, match="windows"):
        read({1.0: sweep(windows=2)})
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"other\.csv"):
        ImageTable.read(tmp_path / "other.csv")
    table = read({1.0: sweep()})
    path = tmp_path / "tables" / "images.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="each stage"):
        ImageTable.read(path)
    with pytest.raises(ConfigError, match="keep ratios"):
        compare([table, read({0.5: sweep()})])


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (lambda: segmentor(test_cfg=SLIDE), "mode"),
        (classifier, "ThinkingClassifier"),
    ],
)
def test_models_without_one_row_for_an_image(model, named):
    with pytest.raises(ConfigError, match=named):
        check_whole_images(model())
    check_whole_images(segmentor())
    check_whole_images(segmentor(test_cfg=None))  # whole by default
