"""What all tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from mmengine.registry import init_default_scope

import tvit_seg  # noqa: F401, registers everything

# the same examples each time, so that a failure is one for everybody
settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")

DATA = Path(__file__).parent / "data"


@pytest.fixture(autouse=True)
def _quiet_start():
    """Every test starts from the same random state and scope."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002, mmseg draws from it
    init_default_scope("mmseg")


class Reference(dict):
    """Reference tensors; ``weights`` are the parameters under the authors' names."""

    def __init__(self, name: str):
        with np.load(DATA / f"{name}.npz") as file:
            arrays = {key: torch.from_numpy(file[key]) for key in file.files}
        self.weights = {k[6:]: v.float() for k, v in arrays.items() if k.startswith("param/")}
        super().__init__((k, v) for k, v in arrays.items() if not k.startswith("param/"))


@pytest.fixture
def reference():
    """Loads reference tensors by file name."""
    return Reference
