"""Label pictures of colours become label maps."""

import numpy as np
import pytest
from PIL import Image

from tvit_seg.datasets.colours import convert_colours
from tvit_seg.errors import ConfigError, DataError

COLOURS = [(128, 64, 128), (0, 0, 142), (255, 255, 255)]


def picture(path, *colours):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([colours], np.uint8)).save(path)


def labels(path):
    with Image.open(path) as image:
        assert image.mode == "P"
        shown = np.asarray(image.convert("RGB"))[0].tolist()
        return np.asarray(image)[0].tolist(), shown


def test_maps_and_other_colours(tmp_path):
    picture(tmp_path / "in/deep/a.bmp", COLOURS[1], COLOURS[0], (1, 2, 3), (1, 2, 3))
    Image.fromarray(np.array([[255, 7]], np.uint8)).save(tmp_path / "in/b.png")  # a grey mask
    found = convert_colours(tmp_path / "in", tmp_path / "out", COLOURS, ignore_index=254)
    values, shown = labels(tmp_path / "out/deep/a.png")
    assert values == [1, 0, 254, 254]
    assert shown[:2] == [list(COLOURS[1]), list(COLOURS[0])]
    assert labels(tmp_path / "out/b.png")[0] == [2, 254]
    assert found == {(1, 2, 3): 2, (7, 7, 7): 1}


@pytest.mark.parametrize("colours", [[], [(0, 0)], [(0, 0, 256)], [(1, 2, 3)] * 2])
def test_bad_colours(tmp_path, colours):
    picture(tmp_path / "in/a.png", COLOURS[0])
    with pytest.raises(ConfigError, match="colours must be different triples"):
        convert_colours(tmp_path / "in", tmp_path / "out", colours)


def test_bad_folders(tmp_path):
    picture(tmp_path / "in/a.png", COLOURS[0])
    with pytest.raises(ConfigError, match="target must be another folder"):
        convert_colours(tmp_path / "in", tmp_path / "in", COLOURS)
    (tmp_path / "in/b.png").write_text("no picture")
    with pytest.raises(DataError, match=r"b\.png"):
        convert_colours(tmp_path / "in", tmp_path / "out", COLOURS)
