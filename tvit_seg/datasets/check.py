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

from tvit_seg.datasets import _check_memory
from tvit_seg.datasets._image_check import check_images
from tvit_seg.datasets._sample_check import Finding, allowed_values, check_sample
from tvit_seg.datasets.corrupt import leaves, pop_skip_corrupt, skips_corrupt
from tvit_seg.datasets.error import DataError
from tvit_seg.datasets.timm_dataset import TimmDataset

_SHOWN = 5  # offending files named in an error or a warning


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
            _report(part, pairs, _scan(part, pairs, _allowed(part, num_classes), workers))


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
        for part in _datasets(cfg, name):
            if isinstance(part, TimmDataset):
                _check_labels(part, model, labels)
                labels = part.metainfo["classes"]
                check_images(part, skip=skip)
            else:
                _check_classes(part, model)
                _check_unless_remembered(part, skip)


def require_data(cfg: Config, loader: str = "test_dataloader") -> None:
    """Checks that the folders of a dataloader exist, without reading what is in them.

    Args:
        cfg: It is not changed.
        loader: Name of the dataloader.

    Raises:
        DataError: A folder does not exist.
    """
    for part in _datasets(cfg, loader):
        if isinstance(part, TimmDataset):
            _check_labels(part, cfg.get("model") or {})
            continue
        _require_folders(part, [path for path in part.data_prefix.values() if path])


def _datasets(cfg: Config, loader: str) -> Iterator[BaseSegDataset]:
    """The datasets of a dataloader, not loaded: mmengine does not say which folder is bad."""
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


def _check_labels(dataset: TimmDataset, model: dict, others: tuple[str, ...] | None = None) -> None:
    """The image-level head must have a class for every label, and all parts the same classes."""
    classes = dataset.metainfo["classes"]
    wanted = (model.get("backbone") or {}).get("num_classes")
    if classes and wanted is not None and wanted != len(classes):
        raise DataError(
            f"the backbone has num_classes={wanted}, but {dataset.folder or dataset.tar or 'data'} "
            f"has {len(classes)} classes"
        )
    if others and classes and others != classes:
        differing = sorted(set(others) ^ set(classes)) or "their order"
        raise DataError(
            f"training and validation have other classes ({len(others)} and {len(classes)}); "
            f"not in both: {differing[:8]}"
        )


def _check_classes(dataset: BaseSegDataset, model: dict) -> None:
    """The heads must have a class for every label."""
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
    """Returns the (image, label) paths in use, after ``filter_cfg`` and ``indices``."""
    _require_folders(dataset, _needed_folders(dataset))
    listed = dataset.load_data_list()
    used = _used_infos(dataset) if listed else []
    if not used:
        why = f" (of {len(listed)} images, indices or a filter leave none)" if listed else ""
        raise DataError(f"{_name(dataset)} is empty{why}; searched {_searched(dataset)}")
    pairs = [(info["img_path"], info["seg_map_path"]) for info in used]
    _require_pairs(dataset, pairs, {info["seg_map_path"] for info in listed})
    return pairs


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


def _require_pairs(
    dataset: BaseSegDataset, pairs: list[tuple[str, str]], expected: set[str]
) -> None:
    exists = partial(fileio.exists, backend_args=dataset.backend_args)
    no_image = [image for image, _ in pairs if not exists(image)]
    no_label = [image for image, label in pairs if not exists(label)]
    num_labels, orphans = len(pairs) - len(no_label), []
    # A name list or indices choose some samples; other files may lie around.
    if not _has_name_list(dataset) and dataset._indices is None:
        labels = _label_files(dataset)
        num_labels, orphans = len(labels), sorted(labels - expected)
    if no_image or no_label or orphans:
        raise DataError(
            f"{_name(dataset)}: {len(pairs) - len(no_image)} images and {num_labels} labels do not "
            "pair up"
            + _some("images not found", no_image)
            + _some("images without label", no_label)
            + _some("labels without image", orphans)
            + f"\nsearched {_searched(dataset)}"
        )


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


def _some(what: str, items: list[str]) -> str:
    if not items:
        return ""
    more = [f"... and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else []
    return "\n  ".join([f"\n{len(items)} {what}:", *items[:_SHOWN], *more])


def _allowed(dataset: BaseSegDataset, num_classes: int | None) -> np.ndarray:
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
                + _some(f"of {len(pairs)} samples", [bad.text for bad in corrupt]),
                stacklevel=2,
            )
    if found:
        hints = dict.fromkeys(bad.hint for bad in found if bad.hint)
        raise DataError(
            f"{_name(dataset)}: bad data"
            + _some(f"of {len(pairs)} samples", [bad.text for bad in found])
            + "".join(f"\nhint: {hint}" for hint in hints)
        )


def _check_unless_remembered(dataset: BaseSegDataset, skip: bool) -> None:
    pairs, allowed = _list_pairs(dataset), _allowed(dataset, None)
    if dataset.backend_args:  # no cheap sizes and times from a remote store
        _report(dataset, pairs, _scan(dataset, pairs, allowed), skip)
        return
    fingerprint = _check_memory.fingerprint(pairs, allowed)
    if not _check_memory.knows(fingerprint):
        found = _scan(dataset, pairs, allowed)
        _report(dataset, pairs, found, skip)
        if not found:
            _check_memory.remember(fingerprint, dataset.data_prefix["img_path"])
