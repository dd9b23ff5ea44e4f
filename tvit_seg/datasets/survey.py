"""All that is wrong with a dataset, and what is in it; the check before training stops at once."""

import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from tqdm import tqdm

from ..errors import DataError
from ..utils.text import some
from ._image_check import read_images
from ._sample_check import inspect_sample, trained_values
from .check import allowed_labels, check_classes, check_labels, datasets_of, unpaired, used_pairs
from .timm_dataset import TimmDataset


@dataclass
class Survey:
    """What is in a dataset of K classes.

    Attributes:
        name: How to call it.
        dataset: What was read; None if there was nothing to read.
        classes: Their names.
        problems: What must be mended, each file under its kind.
        remarks: What may be meant so.
        hints: How to mend it.
        samples: Paths of images (and labels) that are fine.
        pixels: (K,) pixels of each class, in all labels that could be decoded; None where labels
            are of whole images.
        images: (K,) images in which the class occurs.
        read: How many labels ``images`` was counted in.
        ignored: Pixels that training ignores.
        outside: Pixels whose value is not allowed.
    """

    name: str
    dataset: BaseSegDataset | TimmDataset | None = None
    classes: tuple[str, ...] = ()
    problems: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    samples: list[tuple[str, ...]] = field(default_factory=list)
    pixels: np.ndarray | None = None
    images: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    read: int = 0
    ignored: int = 0
    outside: int = 0

    def add(self, kind: str, *texts: str) -> None:
        """Notes problems of a kind; none leave no trace."""
        if texts:
            self.problems.setdefault(kind, []).extend(texts)

    @property
    def shares(self) -> np.ndarray:
        """(K,) per cent of the pixels of all classes, or of the images."""
        counts = self.images if self.pixels is None else self.pixels
        return 100 * counts / max(1, counts.sum())


def survey_config(cfg: Config, workers: int | None = None) -> list[Survey]:
    """Surveys the datasets of ``train_dataloader``, ``val_dataloader`` and ``test_dataloader``.

    Args:
        cfg: Of a training; it is not changed.
        workers: Threads that decode; by default one per CPU.

    Returns:
        One survey for each dataset; the test data only if they are others than the validation's.
    """
    surveys, model = [], cfg.get("model") or {}
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if loader == "test_dataloader" and cfg.get(loader) == cfg.get("val_dataloader"):
            continue
        split = loader.removesuffix("_dataloader")
        try:
            parts = list(datasets_of(cfg, loader))
        except DataError as error:
            surveys.append(Survey(split, problems={"data": [str(error)]}))
            continue
        for index, part in enumerate(parts):
            number = f" {index + 1}" if len(parts) > 1 else ""
            survey = survey_dataset(part, f"{split}{number}", workers)
            try:
                if isinstance(part, TimmDataset):
                    check_labels(part, model)
                else:
                    check_classes(part, model)
            except DataError as error:
                survey.add("model", str(error))
            surveys.append(survey)
    _compare(surveys)
    return surveys


def survey_dataset(
    dataset: BaseSegDataset | TimmDataset, name: str = "data", workers: int | None = None
) -> Survey:
    """Reads every image and label, whatever is wrong with others.

    Args:
        dataset: It is not changed.
        name: How to call it.
        workers: Threads that decode; by default one per CPU.

    Returns:
        What was found.
    """
    survey = Survey(name, dataset, tuple(dataset.metainfo.get("classes") or ()))
    try:
        if isinstance(dataset, TimmDataset):
            _survey_images(survey, workers)
        else:
            _survey_labels(survey, workers)
    except DataError as error:
        survey.add("data", str(error))
    absent = [c for c, n in zip(survey.classes, survey.images, strict=False) if not n]
    if absent and survey.samples:
        survey.remarks.append(f"{len(absent)} classes do not occur: {some(absent, 20)}")
    return survey


def _survey_images(survey: Survey, workers: int | None) -> None:
    """Images with a label each."""
    found = read_images(survey.dataset, workers)
    survey.add("unreadable image", *(text for text in found if isinstance(text, str)))
    labels = [label for label in found if isinstance(label, int)]
    survey.images = np.bincount(labels, minlength=len(survey.classes))
    survey.read = len(labels)
    survey.samples = [
        (survey.dataset.filename(i),) for i, label in enumerate(found) if isinstance(label, int)
    ]


def _survey_labels(survey: Survey, workers: int | None) -> None:
    """Images with a label map each."""
    dataset = survey.dataset
    allowed = allowed_labels(dataset)
    pairs, expected = used_pairs(dataset)
    missing = unpaired(dataset, pairs, expected)
    for kind, files in missing.items():
        survey.add(kind, *files)
    incomplete = {*missing["images not found"], *missing["images without label"]}
    pairs = [pair for pair in pairs if pair[0] not in incomplete]
    _remark_other_endings(survey, expected)

    survey.pixels = np.zeros(len(survey.classes), int)
    survey.images = np.zeros(len(survey.classes), int)
    trained, blank, hints, values_seen = trained_values(dataset), [], {}, set()
    inspect = partial(inspect_sample, dataset=dataset, allowed=allowed)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        delay = 0 if sys.stderr.isatty() else 2
        results = tqdm(pool.map(inspect, pairs), f"reading {survey.name}", len(pairs), delay=delay)
        for pair, (problems, values) in zip(pairs, results, strict=True):
            for found in problems:
                survey.add("image or label", found.text)
                hints[found.hint] = None
            values_seen |= values.keys()
            survey.read += bool(values)
            seen = _classes_of(values, trained, allowed, survey)
            if not problems:
                survey.samples.append(pair)
                if not seen:
                    blank.append(pair[1])
    survey.hints = [hint for hint in hints if hint] + _zero_label(survey, values_seen)
    if blank:
        survey.remarks.append(f"{len(blank)} labels have ignored pixels only, such as {blank[0]}")


def _classes_of(
    values: dict[int, int], trained: np.ndarray, allowed: np.ndarray, survey: Survey
) -> set[int]:
    """Counts the pixels of a label; returns the classes that occur."""
    seen, ignored = set(), survey.dataset.ignore_index
    for value, count in values.items():
        if not 0 <= value <= 255 or not allowed[value]:
            survey.outside += count
        elif trained[value] != ignored and trained[value] < len(survey.classes):
            survey.pixels[trained[value]] += count
            seen.add(int(trained[value]))
        else:
            survey.ignored += count
    survey.images[list(seen)] += 1
    return seen


def _zero_label(survey: Survey, values: set[int]) -> list[str]:
    """Whether labels look as if 0 meant something else: no class, or all that is no mask."""
    count, reduce = len(survey.classes), survey.dataset.reduce_zero_label
    ignored = survey.dataset.ignore_index
    if not reduce and count == max(values - {ignored}, default=None):
        more = "" if min(values) else f"; if 0 is a class as well, there are {count + 1} classes"
        return [
            f"{survey.name}: labels run from {min(values)} to {count}, with {count} classes; with "
            f"reduce_zero_label=True training sees them one less, and 0 as ignored{more}"
        ]
    if count > 1 and values == {0, ignored}:
        return [
            f"{survey.name}: labels hold 0 and {ignored} alone, and {ignored} is ignored; a mask's "
            "foreground must be stored as 1"
        ]
    if reduce and 0 in values and count not in values:
        survey.remarks.append(
            f"reduce_zero_label=True ignores label 0 and makes {count} the last class, which does "
            "not occur; is it meant so?"
        )
    return []


def _remark_other_endings(survey: Survey, labels: set[str]) -> None:
    """Files that lie among images but have another ending are not read, and easily missed."""
    dataset = survey.dataset
    folder = dataset.data_prefix.get("img_path")
    if dataset.backend_args or not folder or not os.path.isdir(folder):
        return
    others = Counter(
        os.path.splitext(entry.name)[1]
        for entry in os.scandir(folder)
        if entry.is_file() and not entry.name.endswith(dataset.img_suffix)
        if entry.path not in labels
    )
    if others:
        listed = ", ".join(f"{count} *{ending}" for ending, count in others.most_common(5))
        survey.remarks.append(f"{folder} has files that are not read: {listed}")


def _compare(surveys: list[Survey]) -> None:
    """What splits must have in common, and what not."""
    read = [survey for survey in surveys if survey.classes]
    for one in read[1:]:
        if one.classes != read[0].classes:
            differing = sorted(set(one.classes) ^ set(read[0].classes))
            why = f"not in both: {', '.join(differing)}" if differing else "in another order"
            one.add("classes", f"other classes than in {read[0].name}, {why}")
    seen: dict[str, str] = {}
    for survey in surveys:
        shared = Counter(seen[image] for image, *_ in survey.samples if image in seen)
        for other, count in shared.items():
            survey.remarks.append(f"{count} images are in {other} as well")
        seen.update((image, survey.name) for image, *_ in survey.samples)
