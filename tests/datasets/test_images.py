"""Images that cannot be decoded are named; PIL's limit of pixels holds."""

import pytest
from PIL import Image

from tvit_seg.datasets.images import find_pictures, read_image, read_label
from tvit_seg.errors import CorruptImageError, DataError


@pytest.mark.parametrize(
    ("read", "ending"), [(read_image, ".jpg"), (read_image, ".bmp"), (read_label, ".png")]
)
def test_damaged_files(tmp_path, read, ending):
    path = tmp_path / f"a{ending}"
    Image.effect_noise((32, 24), 99).save(path)
    assert read(path).shape[:2] == (24, 32)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CorruptImageError, match=f"{path}: corrupt or truncated"):
        read(path)
    path.write_text("text")
    with pytest.raises(CorruptImageError, match=f"{path}: corrupt or truncated: not an image"):
        read(path)
    path.unlink()
    with pytest.raises(DataError, match=f"{path} cannot be read: No such file"):
        read(path)


def test_too_many_pixels(tmp_path, monkeypatch):
    Image.new("L", (32, 24)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(CorruptImageError, match=r"a\.png: .*768 pixels"):
        read_image(tmp_path / "a.png")


def test_find_pictures(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("b.JPG", "a.txt", "more/a.png"):
        (tmp_path / name).touch()
    assert find_pictures(tmp_path) == [tmp_path / "b.JPG", tmp_path / "more/a.png"]
    for folder, message in (("nowhere", "does not exist"), ("more", "holds no picture")):
        (tmp_path / "more/a.png").unlink(missing_ok=True)
        with pytest.raises(DataError, match=message):
            find_pictures(tmp_path / folder)
