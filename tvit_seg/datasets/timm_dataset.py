"""Labelled images from any dataset that timm reads, with timm's augmentation."""

import os
from pathlib import Path

import torch
from mmengine.structures import BaseDataElement
from PIL import Image
from timm.data import create_dataset, create_transform
from timm.data.readers.img_extensions import get_img_extensions
from torch.utils.data import Dataset, IterableDataset
from torchvision.transforms import PILToTensor

from ..errors import DataError
from ..registry import register
from ..utils.checks import check
from ..utils.text import some
from .images import reading


@register("DATASETS")
class TimmDataset(Dataset):
    """Images and class labels, read by ``timm.data.create_dataset``.

    Args:
        data_root: A folder with one folder of images for each class, a tar file of such a folder,
            or the location of the named dataset.
        split: Folder inside ``data_root``, or timm's name of the split.
        transform: Arguments of ``timm.data.create_transform``, such as ``dict(input_size=224,
            is_training=True, auto_augment='rand-m9-mstd0.5-inc1')``. Normalising and erasing are
            left to :class:`~tvit_seg.models.classifiers.ClsDataPreProcessor`; None returns the
            whole image.
        name: timm's name of the dataset, e.g. ``'torch/cifar10'`` or ``'hfds/...'``; empty for
            folders and tar files.
        num_classes: Required number of classes; None accepts any.
        **kwargs: Further arguments of ``create_dataset``, e.g. ``class_map``.

    Raises:
        DataError: There is no such data, a class folder is empty, an image is outside of or deeper
            inside the class folders, or the number of classes differs.
        ConfigError: timm reads the dataset as a stream, which samplers cannot choose from.
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
        root = Path(data_root)
        self.tar = root if not name and root.is_file() else None
        self.folder = None if name or self.tar else root / split
        if self.folder and not self.folder.is_dir():
            found = sorted(path.name for path in root.glob("*") if path.is_dir())
            raise DataError(
                f"not found: {str(self.folder if root.exists() else root)!r} (working folder "
                f"{os.getcwd()}); folders in {data_root}: {some(found)}"
            )
        try:
            self.source = create_dataset(name, root=data_root, split=split, **kwargs)
        except RuntimeError as error:  # no images
            raise DataError(str(error)) from error
        is_stream = isinstance(self.source, IterableDataset)
        check(not is_stream, "name", name, "a dataset that timm indexes, not a stream")
        if self.folder:
            self._check_layout()
        classes = _classes(self.source)
        if classes and num_classes not in (None, len(classes)):
            raise DataError(
                f"{data_root} ({split}) has {len(classes)} classes, but num_classes={num_classes}"
            )
        self.metainfo = dict(classes=classes)
        whole = transform is None
        self.transform = PILToTensor() if whole else create_transform(normalize=False, **transform)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict:
        """Return ``inputs`` (3, H, W) uint8 RGB, transformed, and ``data_samples``.

        Raises:
            CorruptImageError: The image, which is named, cannot be decoded.
            DataError: It is missing.
        """
        image, label = self.read(index)
        sample = BaseDataElement(gt_label=torch.tensor(int(label)))
        return dict(inputs=self.transform(image), data_samples=sample)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """Return the stored RGB image and its label; raises as ``__getitem__``."""
        reader = getattr(self.source, "reader", None)
        with reading(self.filename(index)):
            if reader is None:  # a dataset of torchvision's
                image, label = self.source[index]
                return image.convert("RGB"), label
            # timm's own __getitem__ would take the next image in place of a broken one
            stream, label = reader[index][:2]
            with stream:
                return Image.open(stream).convert("RGB"), label

    def filename(self, index: int) -> str:
        """Return the path of an image, or its name inside a tar file or another dataset."""
        reader = getattr(self.source, "reader", None)
        if reader is None:
            return f"{type(self.source).__name__}[{index}]"
        return str(reader.filename(index, absolute=True))

    def _check_layout(self) -> None:
        """Require folder/CLASS/IMAGE.

        timm names classes by the innermost folder, and an empty folder would shift all labels.
        """
        holding = {Path(self.filename(index)).parent for index in range(len(self))}
        for path in sorted(holding):
            if path.parent.resolve() != self.folder.resolve():
                raise DataError(
                    f"images lie in {path}; expected {self.folder}/CLASS/IMAGE, one folder deep"
                )
        names = {path.name for path in self.folder.iterdir() if path.is_dir()}
        empty = sorted(names - {path.name for path in holding})
        if empty:
            raise DataError(
                f"{self.folder}: {len(empty)} of {len(names)} class folders hold no image "
                f"({', '.join(get_img_extensions())}): {some(empty)}"
            )


def _classes(source: Dataset) -> tuple[str, ...]:
    """Return the names of the classes by label; none where timm does not know them."""
    reader = getattr(source, "reader", source)
    for key in ("class_to_idx", "class_name_to_idx"):
        if mapping := getattr(reader, key, None):
            return tuple(str(name) for name in sorted(mapping, key=mapping.get))
    return tuple(str(name) for name in getattr(reader, "classes", ()))
