"""Files of a dataset, read as the pipeline of the dataset reads them."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import cv2
import mmcv
import mmcv.transforms as mmcv_transforms
import mmseg.datasets.transforms as mmseg_transforms
import numpy as np
from mmengine import fileio
from PIL import Image

from ..errors import ConfigError, CorruptImageError, TvitSegError, UnknownFormatError
from ..utils.text import first_line
from .images import read_image, read_label, reading, require_bytes, require_whole

# classes whose files are ordinary pictures, unless they name tifffile
_ORDINARY = (
    mmcv_transforms.LoadImageFromFile,
    mmcv_transforms.LoadAnnotations,
    mmseg_transforms.LoadAnnotations,
)
_KINDS: dict[str, Any] = dict(
    img_path=mmcv_transforms.LoadImageFromFile,
    seg_map_path=(mmcv_transforms.LoadAnnotations, mmseg_transforms.LoadBiomedicalAnnotation),
)


class FileReader:
    """Reader of the image and the label map of a sample, by the loading steps of a pipeline.

    A file is what its loader makes of it. Only where that is mmcv's or mmseg's loader of pictures,
    which may fill the rest of a truncated file with grey, PIL is asked whether it is complete.

    Args:
        transforms: Steps of the pipeline; without any, files are read as mmseg does by default.
        backend_args: As in mmengine's ``fileio``.
    """

    def __init__(self, transforms: Sequence[Callable] = (), backend_args: dict | None = None):
        self.transforms = transforms
        self.backend_args = backend_args
        self._loaders = {
            key: next((step for step in transforms if isinstance(step, kind)), None)
            for key, kind in _KINDS.items()
        }

    def image(self, info: Mapping[str, Any]) -> np.ndarray:
        """Read the image of a sample, ``img_path`` at least: (H, W) or (H, W, C), of any type.

        Raises:
            CorruptImageError: The loader cannot decode it.
            DataError: It cannot be read.
            ConfigError: The pipeline loads no image, or its loader lacks a package.
        """
        if not self.transforms:
            return read_image(info["img_path"], self.backend_args)
        self.require_whole("img_path", info["img_path"])
        try:
            image = self._run(info, "img_path", "img")
        except CorruptImageError:
            if self._is_ordinary("img_path"):
                read_image(info["img_path"], self.backend_args)  # names a cause
            raise
        if image is None:
            raise ConfigError(f"the pipeline loads no image: {self.transforms}")
        return image

    def label(self, info: Mapping[str, Any]) -> tuple[np.ndarray, bool]:
        """Read the label map of a sample; raises as :meth:`image`.

        Returns:
            (H, W) values, and whether they are those in the file, before the dataset's options and
            mmseg's truncation to 8 bits. A loader of another kind gives final ones.
        """
        path, loader = info["seg_map_path"], self._loaders["seg_map_path"]
        if type(loader) not in _ORDINARY and self.may_load_labels:
            label = self._run(info, "seg_map_path", "gt_seg_map")
            if label is not None:
                return label, False
        if loader is None or loader.imdecode_backend == "pillow":
            return read_label(path, self.backend_args), True
        with _decoding(path, loader):
            content = fileio.get(path, backend_args=self.backend_args)
            backend = loader.imdecode_backend
            return mmcv.imfrombytes(content, flag="unchanged", backend=backend).squeeze(), True

    def final_label(self, info: Mapping[str, Any]) -> np.ndarray:
        """Read the label map (H, W) of a sample as training gets it; raises as :meth:`image`."""
        label, from_file = self.label(info)
        if not from_file:
            return label
        loader = self._loaders["seg_map_path"]
        if loader is None:
            loader = mmseg_transforms.LoadAnnotations(backend_args=self.backend_args)
        return loader({**info, "seg_fields": []})["gt_seg_map"]

    @property
    def may_load_labels(self) -> bool:
        """True if a step loads labels, or may do so for all that is known of its class."""
        loads = self._loaders["seg_map_path"] is not None
        return loads or any(map(_is_foreign, self.transforms))

    def require_whole(self, key: str, path: str, decode_others: bool = True) -> None:
        """Reject a truncated picture, unless its loader reads other formats.

        Labels above 255, which mmseg would read modulo 256, are rejected too.

        Args:
            key: ``'img_path'`` or ``'seg_map_path'``.
            path: File to check.
            decode_others: See :func:`~tvit_seg.datasets.images.require_whole`.
        """
        if self._is_ordinary(key):
            with suppress(UnknownFormatError), reading(path):  # others than PIL's formats
                content = fileio.get(path, backend_args=self.backend_args)
                require_whole(content, decode_others)
                if key == "seg_map_path":
                    require_bytes(content, path)

    def squeezed_peak(self, info: Mapping[str, Any]) -> int | None:
        """Largest value of an image of 16 bits that its loader squeezes into 8; else None."""
        if self.transforms and not self._is_ordinary("img_path"):
            return None
        if getattr(self._loaders["img_path"], "color_type", "color") == "unchanged":
            return None
        content = fileio.get(info["img_path"], backend_args=self.backend_args)
        if not _has_16_bits(content):
            return None
        whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        return None if whole is None or whole.dtype != np.uint16 else int(whole.max())

    def without_labels(self) -> list[Callable]:
        """Steps for a sample without a label map."""
        kind = _KINDS["seg_map_path"]
        return [step for step in self.transforms if not isinstance(step, kind)]

    def after_image(self) -> list[Callable]:
        """Steps for an image that is loaded already: those after its loader, without labels."""
        steps = self.without_labels()
        loader = self._loaders["img_path"] or steps[0]
        return steps[steps.index(loader) + 1 :]

    def _is_ordinary(self, key: str) -> bool:
        loader = self._loaders[key]
        return type(loader) in _ORDINARY and loader.imdecode_backend != "tifffile"

    def _run(self, info: Mapping[str, Any], source: str, target: str) -> np.ndarray | None:
        """Run steps until one gives ``target``; None if none does before the sample is packed."""
        data: Any = {**dict(seg_fields=[], label_map=None, reduce_zero_label=False), **info}
        for step in self.transforms:
            first = "img_path" if "img_path" in info and "img" not in data else source
            with _decoding(info[first], step):
                data = step(data)
            if not isinstance(data, dict) or "inputs" in data:
                break
            if target in data:
                return np.asarray(data[target])
        return None


def _is_foreign(step: Callable) -> bool:
    """Return whether a step may load labels though it is no class of ours or mm*'s."""
    return type(step).__module__.partition(".")[0] not in ("mmcv", "mmseg", "tvit_seg")


@contextmanager
def _decoding(path: str, loader: Callable) -> Iterator[None]:
    """Turn any error of a loader into one that names file and loader."""
    try:
        with reading(path):
            yield
    except TvitSegError:
        raise
    except ImportError as error:
        raise ConfigError(f"{type(loader).__name__}: {error}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        text = f"{path}: corrupt or truncated: {type(loader).__name__} cannot read it ({reason})"
        raise CorruptImageError(text) from error


def _has_16_bits(content: bytes) -> bool:
    """Return whether the header of a PNG or TIFF names 16 bits per value."""
    if content[12:16] == b"IHDR":
        return content[24] == 16
    if content[:4] not in (b"II*\0", b"MM\0*"):
        return False
    try:
        image: Any = Image.open(io.BytesIO(content))
    except Image.UnidentifiedImageError:
        return True  # a combination of bands and bits that PIL does not know
    return max(image.tag_v2.get(258, (1,))) == 16
