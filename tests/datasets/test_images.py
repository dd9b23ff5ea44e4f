"""Images of strangers are bounded before their pixels are decoded."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from helpers.classification import image_folder
from PIL import Image

from tvit_seg.datasets import TimmDataset
from tvit_seg.datasets.images import max_image_pixels, open_image, require_whole
from tvit_seg.errors import CorruptImageError, DataError
from tvit_seg.utils.media import Frames, read_picture


def png(width, height, data=b""):
    """A PNG that declares a size, whatever is in it."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def bmp(width, height):
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, *[0] * 6)


BOMBS = {
    "a.png": png(30000, 30000, bytes(10**6)),
    "b.png": png(2**31 - 1, 2**31 - 1),
    "c.bmp": bmp(60000, 60000),
    "d.png": png(1, 80_000_000),
    "e.png": png(9460, 9460),
}


@pytest.fixture(params=BOMBS)
def bomb(request, tmp_path):
    (tmp_path / request.param).write_bytes(BOMBS[request.param])
    return tmp_path / request.param


@pytest.fixture(autouse=True)
def _own_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@pytest.fixture
def undecoded(monkeypatch):
    """From here on nothing may be decoded."""

    def decode(*args):
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    monkeypatch.setattr(Image.Image, "load", decode)


@pytest.mark.filterwarnings("ignore:Image size")
def test_bombs(bomb, undecoded):
    for read in (open_image, require_whole):
        for source in (bomb.read_bytes(), io.BytesIO(bomb.read_bytes())):
            with pytest.raises(CorruptImageError, match=rf"{bomb}: .*(TVIT_MAX_IMAGE|one side)"):
                read(source, str(bomb))
    with pytest.raises(DataError, match=str(bomb)):
        read_picture(bomb)


@pytest.mark.filterwarnings("ignore:Image size")
def test_bombs_in_image_folders(bomb, tmp_path, request):
    root = image_folder(tmp_path / "images")
    (root / "train" / "ant" / "0.png").write_bytes(bomb.read_bytes())
    request.getfixturevalue("undecoded")
    with pytest.raises(CorruptImageError, match=r"ant/0\.png: .*pixels.*TVIT_MAX|one side"):
        TimmDataset(str(root), "train")[0]


@pytest.mark.filterwarnings("ignore:Image size")
def test_the_limit_can_be_set(monkeypatch, undecoded):
    content = png(20, 10)
    assert open_image(content, "a.png").size == (20, 10)
    monkeypatch.setenv("TVIT_MAX_IMAGE_PIXELS", "199")
    with pytest.raises(CorruptImageError, match=r"a\.png: 20 x 10 pixels .*199; TVIT_MAX_IMAGE"):
        open_image(content, "a.png")
    monkeypatch.setenv("TVIT_MAX_IMAGE_PIXELS", "100000000000")
    assert open_image(BOMBS["a.png"], "a.png").size == (30000, 30000)


@pytest.mark.parametrize("text", ["", "0", "-5", "many", "1e9"])
def test_a_senseless_limit_is_refused(monkeypatch, text):
    monkeypatch.setenv("TVIT_MAX_IMAGE_PIXELS", text)
    with pytest.raises(ValueError, match=rf"TVIT_MAX_IMAGE_PIXELS='{text}' must be a positive"):
        max_image_pixels()


def test_frames_of_a_video(tmp_path, monkeypatch):
    codec = cv2.VideoWriter_fourcc(*"mp4v")
    video = cv2.VideoWriter(str(tmp_path / "in.mp4"), codec, 10, (64, 48))
    if not video.isOpened():
        pytest.skip("this OpenCV writes no mp4 files")
    video.write(np.zeros((48, 64, 3), np.uint8))
    video.release()
    assert len(Frames(tmp_path / "in.mp4")) == 1
    monkeypatch.setenv("TVIT_MAX_IMAGE_PIXELS", "3000")
    with pytest.raises(ValueError, match=r"in\.mp4: 64 x 48 pixels .* more than 3000"):
        Frames(tmp_path / "in.mp4")


def test_frames_larger_than_their_video_says(tmp_path, monkeypatch):
    class Video:
        isOpened = lambda self: True  # noqa: E731
        get = lambda self, what: 8  # noqa: E731
        read = lambda self: (True, np.zeros((100, 80, 3), np.uint8))  # noqa: E731

    monkeypatch.setattr(cv2, "VideoCapture", lambda path: Video())
    monkeypatch.setenv("TVIT_MAX_IMAGE_PIXELS", "3000")
    frames = Frames(tmp_path / "in.mp4")
    with pytest.raises(ValueError, match=r"in\.mp4: 80 x 100 pixels .* more than 3000"):
        next(iter(frames))
