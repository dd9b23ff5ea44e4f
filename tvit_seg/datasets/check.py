"""Checks of the data that a config names: before training, and for ``tools/check_dataset.py``."""

import copy
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from torch.utils.data import Dataset

from ..errors import DataError
from .corrupt import pop_skip_corrupt, skips_corrupt, unwrap, unwrap_config
from .reader import FileReader
from .survey import Problem, Survey, format_problems, require_folders, searched, survey_of
from .timm_dataset import TimmDataset

_AT_ONCE = 5  # problems after which the check before training stops


def check_dataset(
    dataset: Dataset, num_classes: int | None = None, workers: int | None = None
) -> None:
    """Read every image and label of a dataset.

    Args:
        dataset: A ``BaseSegDataset``, a ``TimmDataset``, or a wrapper of these.
        num_classes: Labels must lie in ``[0, num_classes)`` or be the ``ignore_index``; by default
            the number of classes in the metainfo.
        workers: Threads that decode; by default one per CPU.

    Raises:
        DataError: Folders are missing or empty, images and labels do not pair up or differ in
            size, a file is corrupt, or a label has several channels or a value not allowed.
        TypeError: A dataset is of another kind.
    """
    for part in unwrap(dataset):
        survey = survey_of(part, type(part).__name__, num_classes)
        survey.problems += survey.check_files()
        _refuse_problems(survey)
        _require_contents(survey, workers=workers)


def check_config_data(cfg: Config) -> None:
    """Check the data of ``train_dataloader`` and ``val_dataloader`` as in :func:`check_dataset`.

    Corrupt images that training skips (``skip_corrupt=True``) are only listed, in a warning.
    Files are not decoded again if their paths, sizes and times equal those of an earlier successful
    check, recorded as empty files in ``~/.cache/tvit_seg/data_checks``.

    Raises:
        DataError: As in :func:`check_dataset`, or if training and validation have different
            classes, or the model a different number of them.
    """
    first = None
    for loader in ("train_dataloader", "val_dataloader"):
        skip = skips_corrupt(cfg.get(loader))  # the runner refuses it for evaluation
        for part in datasets_of(cfg, loader):
            survey = survey_of(part, f"{loader} ({type(part).__name__})")
            first = first or survey
            for problem in (*head_problems(survey, cfg), *class_problems(survey, first)):
                raise DataError(f"{survey.name}: {problem.text}")
            survey.problems += survey.check_files()
            _refuse_problems(survey)
            fingerprint = survey.fingerprint()
            if fingerprint is None and isinstance(part, TimmDataset):
                continue  # a library keeps the images
            cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
            note = fingerprint and Path(cache, "tvit_seg", "data_checks", fingerprint)
            if note and note.exists():
                continue
            whole = _require_contents(survey, skip)
            for remark in survey.depth_remarks():
                warnings.warn(f"{survey.name}: {remark}", stacklevel=2)
            if whole and note:
                try:
                    note.parent.mkdir(parents=True, exist_ok=True)
                    note.touch()
                except OSError as error:
                    warnings.warn(f"this data check is not remembered: {error}", stacklevel=2)


def survey_config(cfg: Config, workers: int | None = None) -> list[Survey]:
    """Survey every dataset of a config; test data only if it differs from validation data."""
    surveys = []
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if loader == "test_dataloader" and cfg.get(loader) == cfg.get("val_dataloader"):
            continue
        split = loader.removesuffix("_dataloader")
        try:
            parts = list(datasets_of(cfg, loader))
        except DataError as error:
            parts = []
            surveys.append(Survey(None, split, [Problem("data", str(error))]))
        for index, part in enumerate(parts, 1):
            name = f"{split} {index}" if len(parts) > 1 else split
            survey = survey_of(part, name, needs_labels=split != "test").run(workers)
            survey.problems += head_problems(survey, cfg)
            surveys.append(survey)
    read = [survey for survey in surveys if survey.classes]
    for survey in read[1:]:
        survey.problems += class_problems(survey, read[0])
    found_in: dict[str, str] = {}
    for survey in surveys:
        images = [image for image, *_ in survey.samples]
        shared = Counter(found_in[image] for image in images if image in found_in)
        survey.remarks += [f"{n} images are in {name} as well" for name, n in shared.items()]
        found_in |= dict.fromkeys(images, survey.name)
    return surveys


def require_data(cfg: Config, loader: str = "test_dataloader") -> None:
    """Check that the folders of a dataloader exist, without reading their files.

    Raises:
        DataError: A folder does not exist, or the model has a different number of classes.
    """
    for part in datasets_of(cfg, loader):
        if isinstance(part, BaseSegDataset):
            require_folders(part)
        else:
            for problem in head_problems(survey_of(part, loader), cfg):
                raise DataError(f"{loader}: {problem.text}")


def loads_labels(cfg: Config, loader: str = "test_dataloader") -> bool:
    """Return whether the samples of a dataloader have labels."""
    for part in datasets_of(cfg, loader):
        if isinstance(part, BaseSegDataset):
            named = part.data_prefix.get("seg_map_path") is not None
            if not (named and FileReader(part.pipeline.transforms).may_load_labels):
                return False
    return True


def datasets_of(cfg: Config, loader: str) -> Iterator[BaseSegDataset | TimmDataset]:
    """Build the datasets of a dataloader without loading, where mmengine hides missing folders.

    Raises:
        DataError: A ``TimmDataset`` finds no images.
    """
    if not cfg.get(loader):
        return
    dataset = copy.deepcopy(cfg[loader]["dataset"])
    pop_skip_corrupt(dataset)
    for part in unwrap_config(dataset):
        if "dataset" in part or "datasets" in part:
            continue
        part.setdefault("_scope_", cfg.get("default_scope") or "mmseg")
        kind = part["type"]
        cls = DATASETS.get(kind) if isinstance(kind, str) else kind
        if cls is None or issubclass(cls, BaseSegDataset):
            part["lazy_init"] = True
        yield from unwrap(DATASETS.build(part))


def head_problems(survey: Survey, cfg: Config) -> Iterator[Problem]:
    """Find heads of the config's model whose number of classes does not fit a dataset."""
    model, count = cfg.get("model") or {}, len(survey.classes)
    image_level = isinstance(survey.dataset, TimmDataset)
    if image_level and (model.get("distill") or {}).get("label_weight") == 0:
        return  # the classes are the teacher's, and labels are not read
    for name in ("backbone",) if image_level else ("decode_head", "auxiliary_head"):
        heads = model.get(name) or []
        for head in heads if isinstance(heads, list | tuple) else [heads]:
            given = head.get("num_classes") or count
            if count and (given != count if image_level else given < count):
                text = f"{name} has num_classes={given}, but the data has {count} classes"
                yield Problem("model", text)


def class_problems(survey: Survey, other: Survey) -> Iterator[Problem]:
    """Compare the classes of two datasets of a config."""
    if survey.classes and other.classes and survey.classes != other.classes:
        differing = sorted(set(survey.classes) ^ set(other.classes))
        why = f"not in both: {', '.join(differing)}" if differing else "in another order"
        yield Problem("classes", f"other classes than in {other.name}, {why}")


def _require_contents(survey: Survey, skip: bool = False, workers: int | None = None) -> bool:
    """Raise DataError for bad contents; return False for corrupt images that training skips."""
    skipped: list[Problem] = []
    for problem in survey.check_contents(workers):
        (skipped if skip and problem.corrupt else survey.problems).append(problem)
        if len(survey.problems) == _AT_ONCE:
            break
    if skipped and not survey.samples:
        survey.problems += skipped
    _refuse_problems(survey)
    if skipped:
        listed = format_problems(skipped)
        warnings.warn(f"{survey.name}: training skips corrupt images\n{listed}", stacklevel=3)
    return not skipped


def _refuse_problems(survey: Survey) -> None:
    if not survey.problems:
        return
    lines = [f"{survey.name}: bad data; searched {searched(survey.dataset)}"]
    lines += [format_problems(survey.problems), *(f"hint: {hint}" for hint in survey.hints)]
    lines.append("tools/check_dataset.py lists all problems")
    raise DataError("\n".join(lines))
