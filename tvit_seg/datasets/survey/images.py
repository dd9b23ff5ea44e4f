"""Survey of images with a label each."""

from collections.abc import Iterator

import numpy as np

from ...errors import DataError
from .base import Survey, hash_files
from .problems import Problem, unreadable


class ImageSurvey(Survey):
    """A survey of images with a label each."""

    def check_files(self) -> list[Problem]:
        """List the files, which the dataset has checked."""
        self.images = np.zeros(len(self.classes), int)
        self.files = [(self.dataset.filename(i),) for i in range(len(self.dataset))]
        return []

    def check_contents(self, workers: int | None = None) -> Iterator[Problem]:
        """Decode all images; those of a tar file, which is opened once, in one thread."""
        return super().check_contents(workers if self.dataset.folder else 1)

    def _read(self, index: int) -> tuple[list[Problem], dict[int, int]]:
        try:
            label = int(self.dataset.read(index)[1])
        except DataError as error:
            return [unreadable(error, "unreadable image")], {}
        return [], {label: 1} if self.classes else {}

    def fingerprint(self) -> str | None:
        """Hash paths, sizes and times of all files; None if a library manages them."""
        if self.dataset.tar is not None:
            return hash_files([str(self.dataset.tar)])
        return hash_files(path for (path,) in self.files) if self.dataset.folder else None
