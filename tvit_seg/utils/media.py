"""Pictures and frames, read one after the other; a video is written as it comes."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ..datasets.images import check_size, reading, require_whole

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def find_pictures(folder: Path) -> list[Path]:
    """All pictures in a folder and the folders in it, by name.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no picture.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"folder {folder} does not exist")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if not found:
        raise ValueError(f"{folder} holds no picture ({', '.join(PICTURES)})")
    return found


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) BGR.

    Raises:
        ValueError: If it cannot be read, or has too many pixels.
    """
    # through numpy: OpenCV prints its own warning and knows ASCII names only on some systems
    with reading(str(path)):
        data = path.read_bytes()
    require_whole(data, str(path))
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path}: corrupt or truncated: OpenCV cannot decode it")
    return picture


class Frames:
    """The frames of a video, (H, W, 3) BGR, to be gone through once.

    Args:
        path: A video file.

    Raises:
        ValueError: If it cannot be read, or its frames have too many pixels.
    """

    def __init__(self, path: Path):
        self._path = path
        self._video = cv2.VideoCapture(str(path))
        self.fps = self._video.get(cv2.CAP_PROP_FPS) or 25.0
        if not self._video.isOpened() or len(self) < 1:
            raise ValueError(f"{path} cannot be read as a video")
        size = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        check_size(*(int(self._video.get(side)) for side in size), str(path))

    def __len__(self) -> int:
        return int(self._video.get(cv2.CAP_PROP_FRAME_COUNT))

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            found, frame = self._video.read()
            if not found:
                return
            # frames may be of another size than the file says
            check_size(frame.shape[1], frame.shape[0], str(self._path))
            yield frame


class VideoWriter:
    """An mp4 file that takes its size from the first frame.

    Args:
        path: Where to write it.
        fps: Frames in a second.
    """

    def __init__(self, path: Path, fps: float):
        self.path = path
        self.fps = fps
        self._writer = None
        self._size = ()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame (H, W, 3) BGR.

        Raises:
            OSError: If this OpenCV cannot write mp4 files, or the place cannot be written.
            ValueError: If the frame is not as large as the first.
        """
        if self._writer is None:
            height, width = frame.shape[:2]
            codec = cv2.VideoWriter_fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), codec, self.fps, (width, height))
            if not self._writer.isOpened():
                raise OSError(f"{self.path} cannot be written as a video")
            self._size = frame.shape
        if frame.shape != self._size:  # OpenCV would leave it out
            raise ValueError(f"{self.path}: a frame of {frame.shape} after one of {self._size}")
        self._writer.write(frame)
