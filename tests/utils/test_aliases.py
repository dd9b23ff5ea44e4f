"""Names of the last release."""

import importlib

import pytest
import torch

import tvit_seg
from tvit_seg.utils.aliases import _FIELDS, _MODULES, _NAMES


@pytest.mark.parametrize("old, new", _MODULES.items())
def test_modules(old, new):
    new = importlib.import_module(new)
    name = next(name for name in vars(new) if not name.startswith("_"))
    with pytest.warns(FutureWarning, match=old):
        assert getattr(importlib.import_module(old), name) is getattr(new, name)


def test_import_statements():
    with pytest.warns(FutureWarning, match="timm_models"):
        from tvit_seg.timm_models import JointLoss
    with pytest.warns(FutureWarning, match="checkpoint_io"):
        from tvit_seg.checkpoint_io import trusting
    from tvit_seg.models import timm_models
    from tvit_seg.weights import io

    assert JointLoss is timm_models.JointLoss
    assert trusting is io.trusting


@pytest.mark.parametrize("old, new", _NAMES.items())
def test_names(old, new):
    room, _, name = old.rpartition(".")
    target, _, moved = new.rpartition(".")
    with pytest.warns(FutureWarning, match=name):
        found = getattr(importlib.import_module(room), name)
    assert found is getattr(importlib.import_module(target), moved)


def test_fields():
    assert _FIELDS
    mask = torch.ones(1)
    thought = tvit_seg.Thought((), mask, mask, None, keep_mask=mask)
    with pytest.warns(FutureWarning, match="keep_mask"):
        assert thought.kept_tokens is mask


def test_other_names_are_unknown():
    with pytest.raises(AttributeError, match="no_such_name"):
        tvit_seg.evaluation.no_such_name  # noqa: B018
