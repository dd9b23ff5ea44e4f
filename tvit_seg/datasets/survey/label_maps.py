"""Survey of images with a label map each."""

import copy
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from mmengine import fileio
from mmseg.datasets import BaseSegDataset, CityscapesDataset
from mmseg.datasets.transforms import LoadAnnotations

from ...errors import DataError
from ..palette import use_file_palette
from ..reader import FileReader
from .base import IGNORED, NOT_ALLOWED, Survey, hash_files
from .files import has_name_list, refuse_blank_lines, require_folders, searched
from .problems import Problem, unreadable

_CONTENT = "image or label"  # kind of problems with what a file holds
_CONVERT = "convert with tools/check_dataset.py --convert-colours"
_ONE_CHANNEL = f"a label holds one class index per pixel, as a grey or palette PNG; {_CONVERT}"
_TRAIN_IDS = "convert with the cityscapesscripts label ids -> trainIds (`*_labelTrainIds.png`)"


class LabelMapSurvey(Survey):
    """A survey of images with a label map each."""

    def __init__(
        self,
        dataset: BaseSegDataset,
        name: str,
        num_classes: int | None = None,
        needs_labels: bool = True,
    ):
        super().__init__(dataset, name)
        self.needs_labels = needs_labels
        self.labelled = dataset.data_prefix.get("seg_map_path") is not None
        self.num_classes = len(self.classes) if num_classes is None else num_classes
        self.values: set[int] = set()  # that occur in labels
        self.infos: list[dict] = []  # of the files
        self.reader = FileReader(dataset.pipeline.transforms, dataset.backend_args)

    def info_of(self, image_path: str) -> dict:
        """Return what the dataset knows about the sample of an image."""
        return next(info for info in self.infos if info["img_path"] == image_path)

    @property
    def hints(self) -> list[str]:
        """Ways to correct the problems, and hints about the meaning of label 0."""
        count, ignored = self.num_classes, self.dataset.ignore_index
        values, hints = self.values - {ignored} or {0}, super().hints
        if self.values and not self.dataset.reduce_zero_label and max(values) == count:
            first = min(values)
            more = "" if first else f"; if 0 is a class as well, there are {count + 1} classes"
            hints.append(
                f"{self.name}: labels run from {first} to {count}, with {count} classes; with "
                f"reduce_zero_label=True training reads them one lower, and 0 as ignored{more}"
            )
        return hints

    def check_contents(self, workers: int | None = None) -> Iterator[Problem]:
        """Decode and count what ``check_files`` found; yield problems, also of all labels."""
        yield from super().check_contents(workers)
        ignored = self.dataset.ignore_index
        if self.num_classes > 1 and self.values == {0, ignored}:
            folder = self.dataset.data_prefix["seg_map_path"]
            text = f"{folder}: labels contain only 0 and {ignored}, and {ignored} is ignored"
            hint = f"{self.name}: a mask's foreground must be stored as 1; {_CONVERT}"
            yield Problem("labels of one class", text, hint)

    def _find_remarks(self) -> Iterator[str]:
        last, dataset = self.num_classes, self.dataset
        folder, labels = dataset.data_prefix.get("img_path"), {paths[-1] for paths in self.files}
        others = Counter(
            path.suffix
            for path in (Path(folder).glob("*") if folder else ())
            if not path.name.endswith(dataset.img_suffix) and str(path) not in labels
            if path.is_file()
        )
        if others:
            listed = ", ".join(f"{count} *{ending}" for ending, count in others.most_common(5))
            yield f"{folder} has files that are not read: {listed}"
        yield from self.depth_remarks()
        if not self.labelled:
            yield "no labels: data_prefix names no seg_map_path; only images were read"
        if self.blank:
            yield f"{len(self.blank)} labels have ignored pixels only, such as {self.blank[0]}"
        if dataset.reduce_zero_label and 0 in self.values and last not in self.values:
            yield (
                f"reduce_zero_label=True ignores label 0 and makes {last} the last class, which "
                "does not occur; is this intended?"
            )
        yield from super()._find_remarks()

    def check_files(self) -> Iterator[Problem]:
        """List the files without reading them; yield those without their image or label.

        Raises:
            DataError: A folder is missing, or there are no images or classes.
        """
        dataset, name = self.dataset, type(self.dataset).__name__
        require_folders(dataset)
        if not self.labelled and self.needs_labels:
            raise DataError(f"{name}: data_prefix names no seg_map_path: {dataset.data_prefix}")
        if self.num_classes < 1:
            raise DataError(f"{name} has no classes; give metainfo=dict(classes=(...))")
        self.meanings = _meanings(dataset, self.num_classes)
        self.final_meanings = _meanings_of(np.arange(256), dataset.ignore_index, self.num_classes)
        pixels, self.images = np.zeros((2, self.num_classes), int)
        self.pixels = pixels if self.labelled else None
        refuse_blank_lines(dataset)
        listed = dataset.load_data_list()
        if listed and not dataset._fully_initialized:
            dataset = copy.copy(dataset)
            dataset.serialize_data = False  # mmengine fails to serialise an empty list
            dataset.full_init()  # applies filter_cfg and indices
        used = [dataset.get_data_info(i) for i in range(len(dataset))] if listed else []
        if not used:
            why = f" (of {len(listed)} images, indices or a filter leave none)" if listed else ""
            raise DataError(f"{name} is empty{why}; searched {searched(dataset)}")
        kinds = "images not found", "images without label"
        for info in used:
            paths = tuple(info[key] for key in ("img_path", "seg_map_path") if key in info)
            exist = [fileio.exists(path, backend_args=dataset.backend_args) for path in paths]
            if all(exist):
                self.files.append(paths)
                self.infos.append(info)
            yield from (Problem(kinds[i], paths[0]) for i in range(len(paths)) if not exist[i])
        if self.labelled and self.files:
            use_file_palette(self.dataset, self.files[0][1])
        # A name list or indices choose some samples; other files may be there as well.
        if self.labelled and not has_name_list(dataset) and dataset._indices is None:
            folder, ending = dataset.data_prefix["seg_map_path"], dataset.seg_map_suffix
            names = fileio.list_dir_or_file(
                folder, False, suffix=ending, recursive=True, backend_args=dataset.backend_args
            )
            expected = {info["seg_map_path"] for info in listed}
            for label in sorted({os.path.join(folder, name) for name in names} - expected):
                yield Problem("labels without image", label)

    def _read(self, index: int) -> tuple[list[Problem], dict[int, int]]:
        """Return problems of a sample, and pixels of each class in its label."""
        info, problems = self.infos[index], []
        image = label = None
        try:
            image = self.reader.image(info)
            peak = self.reader.squeezed_peak(info)
            self.peaks += [] if peak is None else [peak]
        except DataError as error:
            problems.append(unreadable(error, _CONTENT))
        if not self.labelled:
            return problems, {}
        try:
            label, from_file = self.reader.label(info)
        except DataError as error:
            problems.append(unreadable(error, _CONTENT))
        if label is None:  # one loader may have failed twice
            return list(dict.fromkeys(problems)), {}
        report = partial(Problem, _CONTENT)
        image_path, label_path = self.files[index]
        if label.ndim != 2:
            text = f"{label_path}: label of shape {label.shape}, not single-channel"
            return [*problems, report(text, _ONE_CHANNEL)], {}
        if image is not None and image.shape[:2] != label.shape:
            (height, width), (image_height, image_width) = label.shape, image.shape[:2]
            text = f"{label_path}: label is {width}x{height} (width x height), its image "
            problems.append(report(f"{text}{image_path} is {image_width}x{image_height}"))
        if label.dtype.itemsize == 1:  # several times as fast as np.unique
            pixels = np.bincount(label.ravel())
            values = np.flatnonzero(pixels)
            pixels = pixels[values]
        else:
            values, pixels = np.unique(label, return_counts=True)
            values = values.astype(int)
        self.values.update(values.tolist())
        in_byte = (values >= 0) & (values <= 255)  # mmseg would cut others to 8 bits
        meanings = self.meanings if from_file else self.final_meanings
        classes = np.where(in_byte, meanings[values.clip(0, 255)], NOT_ALLOWED)
        wrong = values[classes == NOT_ALLOWED]
        if len(wrong):
            allowed = np.flatnonzero(meanings != NOT_ALLOWED)
            text = (
                f"{label_path}: label values {_ranges(wrong)} not allowed; "
                f"allowed are {_ranges(allowed)} ({self.dataset.ignore_index} is ignored)"
            )
            is_cityscapes = isinstance(self.dataset, CityscapesDataset)
            problems.append(report(text, _TRAIN_IDS if is_cityscapes else ""))
        return problems, {int(c): int(pixels[classes == c].sum()) for c in np.unique(classes)}

    def fingerprint(self) -> str | None:
        """Hash paths, sizes and times of all files; None if they are in remote storage."""
        if self.dataset.backend_args:
            return None
        return hash_files((path for pair in self.files for path in pair), self.meanings.tobytes())


def _meanings(dataset: BaseSegDataset, num_classes: int) -> np.ndarray:
    """Return (256,) class that mmseg's loader assigns to each value in a label file."""
    with TemporaryDirectory() as folder:
        path = f"{folder}/values.png"
        cv2.imwrite(path, np.arange(256, dtype=np.uint8).reshape(16, 16))
        info = dict(seg_map_path=path, label_map=dataset.label_map, seg_fields=[])
        info["reduce_zero_label"] = dataset.reduce_zero_label
        loaded = LoadAnnotations()(info)["gt_seg_map"].ravel().astype(int)
    return _meanings_of(loaded, dataset.ignore_index, num_classes)


def _meanings_of(loaded: np.ndarray, ignore_index: int, num_classes: int) -> np.ndarray:
    """Return the class of each loaded value."""
    meanings = np.where(loaded < num_classes, loaded, NOT_ALLOWED)
    meanings[loaded == ignore_index] = IGNORED
    return meanings


def _ranges(values: np.ndarray, most: int = 10) -> str:
    """Write 0, 1, 2, 255 as ``0-2, 255``."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    texts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(texts[:most] + ["..."] * (len(texts) > most))
