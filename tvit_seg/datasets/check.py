"""Check of a whole data set before training: one clear error instead of a crash hours later."""

import copy
import os
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from mmengine import fileio
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from tqdm import tqdm

from ..errors import DataError
from ..utils.text import some
from . import _check_memory
from ._image_check import check_images
from ._sample_check import Finding, allowed_values, check_sample
from .corrupt import leaves, pop_skip_corrupt, skips_corrupt
from .timm_dataset import TimmDataset


def check_dataset(dataset, num_classes: int | None = None, workers: int | None = None) -> None:
    """Reads every image and label of a data set.

    Args:
        dataset: A ``BaseSegDataset``, a ``TimmDataset``, or a wrapper of some (``RepeatDataset``,
            ``ConcatDataset``).
        num_classes: Labels must lie in ``[0, num_classes)`` or be the ``ignore_index``; by default
            the number of classes in the metainfo.
        workers: Threads that decode; by default one per CPU.

    Raises:
        DataError: If folders are missing or empty, images and labels do not pair up or differ in
            size, a file is corrupt, or a label has several channels or a value not allowed.
        TypeError: If a data set is neither.
    """
    for part in _parts(dataset):
        if isinstance(part, TimmDataset):
            check_images(part, workers)
        else:
            pairs = _list_pairs(part)
            allowed = allowed_labels(part, num_classes)
            _report(part, pairs, _scan(part, pairs, allowed, workers))


def check_config_data(cfg: Config) -> None:
    """Checks the data of ``train_dataloader`` and ``val_dataloader``, as ``check_dataset`` does.

    Corrupt images that training passes over (``skip_corrupt=True``) are only listed, in a warning.
    Files whose paths, sizes and times are as they were at an earlier, successful check are listed
    but not decoded again; ``~/.cache/tvit_seg/data_checks.json`` remembers them.

    Args:
        cfg: Config of a training; it is not changed.

    Raises:
        DataError: As ``check_dataset``; for labelled images also if training and validation have
            other classes, or the model another number of them. Evaluation passes no image over.
        TypeError: As ``check_dataset``.
    """
    model, labels = cfg.get("model") or {}, None
    for name in ("train_dataloader", "val_dataloader"):
        skip = skips_corrupt(cfg.get(name))
        if skip and name == "val_dataloader":
            raise DataError(f"{name}: skip_corrupt is for training; evaluation sees every image")
        for part in datasets_of(cfg, name):
            if isinstance(part, TimmDataset):
                check_labels(part, model, labels)
                labels = part.metainfo["classes"]
                check_images(part, skip=skip)
            else:
                check_classes(part, model)
                _check_unless_remembered(part, skip)


def require_data(cfg: Config, loader: str = "test_dataloader") -> None:
    """Checks that the folders of a dataloader exist, without reading what is in them.

    Args:
        cfg: It is not changed.
        loader: Name of the dataloader.

    Raises:
        DataError: A folder does not exist.
    """
    for part in datasets_of(cfg, loader):
        if isinstance(part, TimmDataset):
            check_labels(part, cfg.get("model") or {})
            continue
        _require_folders(part, [path for path in part.data_prefix.values() if path])


def datasets_of(cfg: Config, loader: str) -> Iterator[BaseSegDataset | TimmDataset]:
    """The datasets of a dataloader, not loaded: mmengine does not say which folder is bad.

    Args:
        cfg: It is not changed.
        loader: Name of the dataloader; one that is not there has none.

    Raises:
        DataError: If a ``TimmDataset`` finds no images.
        TypeError: If a dataset is of another kind.
    """
    loader = copy.deepcopy(cfg.get(loader))
    if loader:
        pop_skip_corrupt(loader["dataset"])
    for part_cfg in _part_configs(loader["dataset"]) if loader else ():
        part_cfg.setdefault("_scope_", cfg.get("default_scope") or "mmseg")
        kind = part_cfg["type"]
        cls = DATASETS.get(kind) if isinstance(kind, str) else kind
        if cls is None or issubclass(cls, BaseSegDataset):
            part_cfg.update(pipeline=[], lazy_init=True)
        yield from _parts(DATASETS.build(part_cfg))


def check_labels(dataset: TimmDataset, model: dict, others: tuple[str, ...] | None = None) -> None:
    """Raises DataError if the image-level head has not a class for every label.

    Args:
        dataset: Labelled images.
        model: Config of the model.
        others: Classes of another part of the data, which must be the same.
    """
    classes = dataset.metainfo["classes"]
    wanted = (model.get("backbone") or {}).get("num_classes")
    if classes and wanted is not None and wanted != len(classes):
        raise DataError(
            f"the backbone has num_classes={wanted}, but {dataset.folder or dataset.tar or 'data'} "
            f"has {len(classes)} classes"
        )
    if others and classes and others != classes:
        differing = sorted(set(others) ^ set(classes)) or ["only their order"]
        raise DataError(
            f"training and validation have other classes ({len(others)} and {len(classes)}); "
            f"not in both: {some(differing)}"
        )


def check_classes(dataset: BaseSegDataset, model: dict) -> None:
    """Raises DataError if a head has fewer classes than the dataset.

    Args:
        dataset: Has classes in its metainfo, or none.
        model: Config of the model.
    """
    classes = len(dataset.metainfo.get("classes") or ())
    for name in ("decode_head", "auxiliary_head"):
        heads = model.get(name) or []
        for head in heads if isinstance(heads, list | tuple) else [heads]:
            if classes and head.get("num_classes", classes) < classes:
                raise DataError(
                    f"{name} has num_classes={head['num_classes']}, "
                    f"but {_name(dataset)} has {classes} classes"
                )


def _parts(dataset) -> Iterator[BaseSegDataset]:
    for part in leaves(dataset):
        if not isinstance(part, BaseSegDataset | TimmDataset):
            raise TypeError(
                f"cannot check a {_name(part)}: only BaseSegDataset, its subclasses and TimmDataset"
            )
        yield part


def _part_configs(cfg: dict) -> Iterator[dict]:
    if "datasets" in cfg:
        for inner in cfg["datasets"]:
            yield from _part_configs(inner)
    elif "dataset" in cfg:
        yield from _part_configs(cfg["dataset"])
    else:
        yield cfg


def _name(dataset) -> str:
    return type(dataset).__name__


def _searched(dataset: BaseSegDataset) -> str:
    folders = dataset.data_prefix
    names = f", names from {dataset.ann_file}" if _has_name_list(dataset) else ""
    return (
        f"images {folders['img_path']}/*{dataset.img_suffix}, "
        f"labels {folders['seg_map_path']}/*{dataset.seg_map_suffix}{names}"
    )


def _has_name_list(dataset: BaseSegDataset) -> bool:
    return bool(dataset.ann_file) and not os.path.isdir(dataset.ann_file)


def _list_pairs(dataset: BaseSegDataset) -> list[tuple[str, str]]:
    """As :func:`used_pairs`, if every image has its label and the other way round."""
    pairs, expected = used_pairs(dataset)
    missing = unpaired(dataset, pairs, expected)
    if any(missing.values()):
        no_image, no_label, orphans = map(len, missing.values())
        raise DataError(
            f"{_name(dataset)}: {len(pairs) - no_image} images and "
            f"{len(pairs) - no_label + orphans} labels do not pair up"
            + "".join(_listed(what, files) for what, files in missing.items())
            + f"\nsearched {_searched(dataset)}"
        )
    return pairs


def used_pairs(dataset: BaseSegDataset) -> tuple[list[tuple[str, str]], set[str]]:
    """Lists what a dataset reads.

    Args:
        dataset: Loaded or not.

    Returns:
        The (image, label) paths in use, after ``filter_cfg`` and ``indices``; and all labels that
        belong to images of its folder or list.

    Raises:
        DataError: If a folder is missing or there is no image.
    """
    _require_folders(dataset, _needed_folders(dataset))
    listed = dataset.load_data_list()
    used = _used_infos(dataset) if listed else []
    if not used:
        why = f" (of {len(listed)} images, indices or a filter leave none)" if listed else ""
        raise DataError(f"{_name(dataset)} is empty{why}; searched {_searched(dataset)}")
    pairs = [(info["img_path"], info["seg_map_path"]) for info in used]
    return pairs, {info["seg_map_path"] for info in listed}


def _needed_folders(dataset: BaseSegDataset) -> list[str]:
    needed = [dataset.data_prefix.get(key) for key in ("img_path", "seg_map_path")]
    if None in needed:
        raise DataError(
            f"{_name(dataset)}: data_prefix must name img_path and seg_map_path, "
            f"it is {dataset.data_prefix}"
        )
    if _has_name_list(dataset):
        # A list may hold whole paths; then no folder is given.
        needed = [dataset.ann_file, *filter(None, needed)]
    return needed


def _require_folders(dataset: BaseSegDataset, needed: list[str]) -> None:
    for path in needed:
        if not fileio.exists(path, backend_args=dataset.backend_args):
            raise DataError(
                f"{_name(dataset)}: not found: {path!r} (working folder {os.getcwd()}); expected "
                f"layout: {_searched(dataset)}, each label named as its image"
                f"{getattr(dataset, 'HINT', '')}"
            )


def _used_infos(dataset: BaseSegDataset) -> list[dict]:
    if not dataset._fully_initialized:
        dataset = copy.copy(dataset)
        dataset.serialize_data = False  # mmengine fails to serialise an empty list
        dataset.full_init()
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def unpaired(
    dataset: BaseSegDataset, pairs: list[tuple[str, str]], expected: set[str]
) -> dict[str, list[str]]:
    """Which files lack their partner.

    Args:
        dataset: It is not changed.
        pairs: From :func:`used_pairs`.
        expected: From there.

    Returns:
        Paths under what is wrong with them, three kinds of it.
    """
    exists = partial(fileio.exists, backend_args=dataset.backend_args)
    orphans = []
    # A name list or indices choose some samples; other files may lie around.
    if not _has_name_list(dataset) and dataset._indices is None:
        orphans = sorted(_label_files(dataset) - expected)
    return {
        "images not found": [image for image, _ in pairs if not exists(image)],
        "images without label": [image for image, label in pairs if not exists(label)],
        "labels without image": orphans,
    }


def _label_files(dataset: BaseSegDataset) -> set[str]:
    folder = dataset.data_prefix["seg_map_path"]
    names = fileio.list_dir_or_file(
        folder,
        list_dir=False,
        suffix=dataset.seg_map_suffix,
        recursive=True,
        backend_args=dataset.backend_args,
    )
    return {os.path.join(folder, name) for name in names}


def _listed(what: str, items: list[str]) -> str:
    if not items:
        return ""
    return f"\n{len(items)} {what}:\n  " + some(items, separator="\n  ")


def allowed_labels(dataset: BaseSegDataset, num_classes: int | None = None) -> np.ndarray:
    """Says which values 0..255 a label file may hold.

    Args:
        dataset: It is not changed.
        num_classes: By default as many as its metainfo has classes.

    Raises:
        DataError: If it has no classes.
    """
    if num_classes is None:
        num_classes = len(dataset.metainfo.get("classes", ()))
    if num_classes < 1:
        raise DataError(f"{_name(dataset)} has no classes; give metainfo=dict(classes=(...))")
    return allowed_values(dataset, num_classes)


def _scan(
    dataset: BaseSegDataset,
    pairs: list[tuple[str, str]],
    allowed: np.ndarray,
    workers: int | None = None,
) -> list[Finding]:
    check = partial(check_sample, dataset=dataset, allowed=allowed)
    delay = 0 if sys.stderr.isatty() else 2
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        results = pool.map(check, pairs)
        bar = tqdm(results, f"checking {_name(dataset)}", len(pairs), delay=delay)
        return [bad for bad in bar if bad]


def _report(dataset: BaseSegDataset, pairs: list, found: list[Finding], skip: bool = False) -> None:
    """Raises DataError for what was found; warns of corrupt images that training passes over."""
    corrupt = [bad for bad in found if bad.corrupt]
    if skip and len(corrupt) < len(pairs):
        found = [bad for bad in found if not bad.corrupt]
        if corrupt:
            warnings.warn(
                f"{_name(dataset)}: corrupt images, which training passes over"
                + _listed(f"of {len(pairs)} samples", [bad.text for bad in corrupt]),
                stacklevel=2,
            )
    if found:
        hints = dict.fromkeys(bad.hint for bad in found if bad.hint)
        raise DataError(
            f"{_name(dataset)}: bad data"
            + _listed(f"of {len(pairs)} samples", [bad.text for bad in found])
            + "".join(f"\nhint: {hint}" for hint in hints)
        )


def _check_unless_remembered(dataset: BaseSegDataset, skip: bool) -> None:
    pairs, allowed = _list_pairs(dataset), allowed_labels(dataset)
    if dataset.backend_args:  # no cheap sizes and times from a remote store
        _report(dataset, pairs, _scan(dataset, pairs, allowed), skip)
        return
    fingerprint = _check_memory.fingerprint(pairs, allowed)
    if not _check_memory.knows(fingerprint):
        found = _scan(dataset, pairs, allowed)
        _report(dataset, pairs, found, skip)
        if not found:
            _check_memory.remember(fingerprint, dataset.data_prefix["img_path"])
