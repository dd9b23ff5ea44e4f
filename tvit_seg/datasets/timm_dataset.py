"""Labelled images from whatever timm reads, with timm's augmentation."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from mmengine.structures import BaseDataElement
from PIL import Image
from timm.data import create_dataset, create_transform
from timm.data.readers.img_extensions import get_img_extensions
from torch.utils.data import Dataset, IterableDataset
from torchvision.transforms import PILToTensor

from ..errors import DataError
from ..registry import register
from ..utils.argument_types import check_options
from ..utils.text import some
from .images import open_image, reading

_INTERPOLATION = Literal["bilinear", "bicubic", "nearest", "box", "hamming", "lanczos", "random"]
_CHECKED = dict(input_size=int | Sequence[int], interpolation=_INTERPOLATION)  # timm does not


@register("DATASETS")
class TimmDataset(Dataset):
    """Images and class labels, read by ``timm.data.create_dataset``.

    Args:
        data_root: A folder with one folder of images for each class, a tar file of such a folder,
            or where the named dataset lies.
        split: Folder inside ``data_root``, or timm's name of the split.
        transform: Arguments of ``timm.data.create_transform``, such as ``dict(input_size=224,
            is_training=True, auto_augment='rand-m9-mstd0.5-inc1')``. Normalising and erasing are
            left to :class:`~tvit_seg.models.ClsDataPreProcessor`; None gives the whole image.
        name: timm's name of the dataset, e.g. ``'torch/cifar10'`` or ``'hfds/...'``; empty for
            folders and tar files.
        num_classes: How many classes there must be; None takes what is found.
        **kwargs: Further arguments of ``create_dataset``, e.g. ``class_map``.

    Raises:
        DataError: If there is no such data, a class folder holds no image, an image lies beside or
            deeper inside the class folders, or the number of classes is another one.
        ValueError: If timm reads the dataset as a stream, which samplers cannot choose from.
    """

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        transform: dict | None = None,
        name: str = "",
        num_classes: int | None = None,
        **kwargs,
    ):
        self.folder, self.tar = (None, None) if name else _folder_or_tar(data_root, split)
        if self.folder is not None:
            _require_images(self.folder)
        self.source = create_dataset(name, root=data_root, split=split, **kwargs)
        if isinstance(self.source, IterableDataset):
            raise ValueError(
                f"timm reads {name!r} as a stream; samplers need an indexed dataset such as an "
                "image folder, a tar file, torch/* or hfds/*"
            )
        if self.folder is not None:
            self._require_flat()
        classes = _classes(self.source)
        if num_classes is not None and classes and len(classes) != num_classes:
            raise DataError(
                f"{data_root} ({split}) has {len(classes)} classes, but num_classes={num_classes}"
            )
        self.metainfo = dict(classes=classes)
        if transform is None:
            self.transform = PILToTensor()
        else:
            given = {name: transform[name] for name in _CHECKED if name in transform}
            check_options("transform", given, **_CHECKED)
            self.transform = create_transform(normalize=False, **transform)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict:
        """One image.

        Args:
            index: In [0, len).

        Returns:
            ``inputs`` (3, H, W) uint8 RGB, ``data_samples`` with ``gt_label``.

        Raises:
            CorruptImageError: If the image, which is named, cannot be decoded or is too large.
            DataError: If it is gone.
        """
        image, label = self.read(index)
        sample = BaseDataElement(gt_label=torch.tensor(int(label)))
        return dict(inputs=self.transform(image), data_samples=sample)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The whole image and its label, as they are stored; raises as ``__getitem__``."""
        reader = getattr(self.source, "reader", None)
        name = self.filename(index)
        with reading(name):
            if reader is None:  # a dataset of torchvision's
                image, label = self.source[index]
                return image.convert("RGB"), label
            # timm's own __getitem__ would take the next image in place of a broken one
            stream, label = reader[index][:2]
            with stream:
                return open_image(stream, name).convert("RGB"), label

    def filename(self, index: int) -> str:
        """Path of an image; inside a tar file, or for other datasets, what stands for it."""
        reader = getattr(self.source, "reader", None)
        if reader is None:
            return f"{type(self.source).__name__}[{index}]"
        return str(reader.filename(index, absolute=True))

    def _require_flat(self) -> None:
        """Every image lies in its class folder itself: timm names classes by the innermost one."""
        holding = {os.path.dirname(self.filename(index)) for index in range(len(self))}
        for folder in map(Path, sorted(holding)):
            if folder.parent.resolve() != self.folder.resolve():
                raise DataError(
                    f"images lie in {folder}; expected {self.folder}/CLASS/IMAGE, one folder deep"
                )


def _folder_or_tar(data_root: str, split: str) -> tuple[Path | None, Path | None]:
    """The image folder or the tar file, whichever is there; raises DataError if neither is."""
    root = Path(data_root)
    if not root.exists():
        raise DataError(f"not found: {data_root!r} (working folder {os.getcwd()})")
    if root.is_file():
        if root.suffix != ".tar":
            raise DataError(f"{data_root!r} is neither a folder nor an uncompressed .tar file")
        return None, root
    folder = root / split
    if not folder.is_dir():
        found = sorted(path.name for path in root.iterdir() if path.is_dir())
        raise DataError(
            f"not found: {str(folder)!r} (working folder {os.getcwd()}); {data_root} has "
            f"{some(found) if found else 'no folders'}"
        )
    return folder, None


def _require_images(folder: Path) -> None:
    """Every class has a folder with an image: timm would skip an empty one and shift all labels."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    if not classes:
        raise DataError(f"{folder} has no class folders; expected {folder}/CLASS/IMAGE.jpg")
    endings = tuple(get_img_extensions())
    empty = [str(path) for path in classes if not _has_image(path, endings)]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(classes)} class folders hold no image "
            f"({', '.join(endings)}): {some(empty)}"
        )


def _has_image(folder: Path, endings: tuple[str, ...]) -> bool:
    return any(path.suffix.lower() in endings for path in folder.rglob("*"))


def _classes(source: Dataset) -> tuple[str, ...]:
    """Names of the classes, in the order of their labels; empty where timm does not tell."""
    reader = getattr(source, "reader", source)
    for key in ("class_to_idx", "class_name_to_idx"):
        if mapping := getattr(reader, key, None):
            return tuple(str(name) for name in sorted(mapping, key=mapping.get))
    return tuple(str(name) for name in getattr(reader, "classes", ()))
