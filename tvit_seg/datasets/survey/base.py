"""One pass over a dataset that yields problems and counts classes."""

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from mmseg.datasets import BaseSegDataset
from tqdm import tqdm

from ...errors import DataError
from ...utils.text import some
from ..timm_dataset import TimmDataset
from .problems import Problem

_CHECKS_VERSION = 3  # increase it when the checks change, so that cached data is read again
IGNORED, NOT_ALLOWED = -1, -2  # for label values that are no class
_FULL_RANGE = 2**14  # 16-bit images below this are taken for ones of fewer bits


@dataclass
class Survey:
    """Problems of a dataset and statistics of its K classes."""

    dataset: BaseSegDataset | TimmDataset | None  # None if there was none to read
    name: str = "data"
    problems: list[Problem] = field(default_factory=list)  # must be corrected
    remarks: list[str] = field(default_factory=list)  # may be intended
    files: list[tuple[str, ...]] = field(default_factory=list)  # image (and label) of each sample
    samples: list[tuple[str, ...]] = field(default_factory=list)  # files without problems
    pixels: np.ndarray | None = None  # (K,) of each class; None for labels of whole images
    images: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # (K,) with the class
    read: int = 0  # number of labels that were counted
    ignored: int = 0  # pixels that training ignores
    outside: int = 0  # pixels whose value is not allowed
    blank: list[str] = field(default_factory=list)  # labels with ignored pixels only
    peaks: list[int] = field(default_factory=list)  # of images squeezed from 16 bits to 8

    @property
    def classes(self) -> tuple[str, ...]:
        return () if self.dataset is None else tuple(self.dataset.metainfo.get("classes") or ())

    @property
    def shares(self) -> np.ndarray:
        """(K,) per cent of the pixels of all classes, or of the images."""
        counts = self.images if self.pixels is None else self.pixels
        return 100 * counts / max(1, counts.sum())

    @property
    def hints(self) -> list[str]:
        """Ways to correct the problems."""
        return list(dict.fromkeys(problem.hint for problem in self.problems if problem.hint))

    def run(self, workers: int | None = None) -> "Survey":
        """Collect problems, statistics and remarks; ``workers`` threads (one per CPU) decode."""
        try:
            self.problems.extend(self.check_files())
            self.problems.extend(self.check_contents(workers))
        except DataError as error:
            self.problems.append(Problem("data", str(error)))
        self.remarks += self._find_remarks()
        return self

    def check_files(self) -> Iterator[Problem]:
        """List ``files`` without reading them; yield what is wrong with them."""
        yield from ()

    def _read(self, index: int) -> tuple[list[Problem], dict[int, int]]:
        """Decode a sample; return its problems, and what each class counts in it."""
        return [], {}

    def fingerprint(self) -> str | None:
        """Hash paths, sizes and times of all files; None if they lie elsewhere."""
        return None

    def depth_remarks(self) -> Iterator[str]:
        """Remark on files with more bits than their values and the loader use."""
        if self.peaks and max(self.peaks) < _FULL_RANGE:
            peak = max(self.peaks)
            yield (
                f"{len(self.peaks)} images have 16 bits per value, none above {peak}, and are "
                f"loaded as 8 bits: the network gets 0 to {peak >> 8} of 255; scale the files to "
                "the full range, or load them with color_type='unchanged' and set mean and std of "
                "the data_preprocessor to match"
            )

    def _find_remarks(self) -> Iterator[str]:
        absent = [c for c, n in zip(self.classes, self.images, strict=False) if not n]
        if absent and self.read:
            yield f"{len(absent)} classes do not occur: {some(absent, 20)}"

    def check_contents(self, workers: int | None = None) -> Iterator[Problem]:
        """Decode and count what ``check_files`` found; yield problems."""
        pool = ThreadPoolExecutor(workers or os.cpu_count())
        try:
            results = pool.map(self._read, range(len(self.files)))
            delay = 0 if sys.stderr.isatty() else 2
            bar = tqdm(results, f"checking {self.name}", len(self.files), delay=delay)
            for paths, (problems, counts) in zip(self.files, bar, strict=True):
                if not problems:
                    self.samples.append(paths)
                    if counts.keys() == {IGNORED}:
                        self.blank.append(paths[-1])
                self.read += bool(counts)
                self.ignored += counts.pop(IGNORED, 0)
                self.outside += counts.pop(NOT_ALLOWED, 0)
                for index, count in counts.items():
                    self.images[index] += 1
                    if self.pixels is not None:
                        self.pixels[index] += count
                yield from problems
        finally:
            pool.shutdown(cancel_futures=True)  # if the caller wants no more problems


def hash_files(paths: Iterable[str], settings: bytes = b"") -> str:
    """Hash paths, sizes and times of files."""
    digest = hashlib.sha256(b"%d" % _CHECKS_VERSION + settings)
    for path in paths:
        stat = os.stat(path)
        digest.update(f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()
