import math
from collections.abc import Sequence
from numbers import Number
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np
import pytest
from torch import nn

from tvit_seg.utils.argument_types import check_options, misfits


class Base:
    def __init__(self, ratio: float = 1.0, path: Path | None = None):
        pass


class Layer(Base):
    def __init__(
        self,
        heads: int | Sequence[int] = 1,
        *,
        name: str = "a",
        on: bool = False,
        part: nn.Module | dict | None = None,
        size: tuple[int, int] = (1, 1),
        mode: Literal["whole", "slide"] = "whole",
        hooks: Optional[dict[str, int]] = None,  # noqa: UP045, as mmengine writes it
        free: Any = None,
        unsaid=3,
        plain=False,
        pad: Number = 0,
        **others,
    ):
        pass


@pytest.mark.parametrize(
    "arguments",
    [
        dict(heads=2, name="b", on=True, size=[2, 3], mode="slide", free={}, unsaid="x"),
        dict(heads=np.int64(2), ratio=math.inf, path="a.pth"),
        dict(heads=(1, 2), ratio=1, part=dict(type="X"), hooks=dict(a=1)),
        dict(heads=[], part=nn.Identity(), hooks=None, never_heard_of=1, on=0),
        dict(part=None, hooks={}, path=None),
    ],
)
def test_what_fits(arguments):
    assert not list(misfits(Layer, arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(heads="3"), "heads='3' must be an integer or a list, each an integer"),
        (dict(heads=[1, 2.5]), r"heads=[1, 2.5] must be an integer or a list, each an integer"),
        (dict(heads=True), "heads=True must be an integer or a list, each an integer"),
        (dict(heads={}), "heads={} must be an integer or a list, each an integer"),
        (dict(name=None), "name=None must be a text"),
        (dict(on=0.5), "on=0.5 must be True or False"),
        (dict(on="False"), "on='False' must be True or False"),
        (dict(on=2), "on=2 must be True or False"),
        (dict(part=3), "part=3 must be the config of a Module or a dict or None"),
        (dict(part="Layer"), "part='Layer' must be the config of a Module or a dict or None"),
        (dict(size=[1]), "size=[1] must be (an integer, an integer)"),
        (dict(mode="x"), "mode='x' must be 'whole' or 'slide'"),
        (dict(hooks=dict(a="b")), "hooks={'a': 'b'} must be a dict, each an integer or None"),
        (dict(pad={}), "pad={} must be a number"),
        (dict(ratio="1"), "ratio='1' must be a number"),  # of the base
    ],
)
def test_what_does_not(arguments, message):
    assert list(misfits(Layer, dict(arguments, free=1))) == [message]


def test_what_counts():
    wrong = dict(heads="3", ratio="1", on=None)
    assert len(list(misfits(Layer, wrong))) == 3
    assert not list(misfits(Layer, wrong, "tvit_seg."))
    flags = dict(on="no", plain="no", heads="3")
    assert list(misfits(Layer, flags, "tvit_seg.")) == [
        "on='no' must be True or False or None",
        "plain='no' must be True or False or None",
    ]
    assert len(list(misfits(Layer.__init__, wrong))) == 2  # without its base
    assert not list(misfits(dict, wrong))  # has no signature


def test_options():
    check_options("test_cfg", {}, per_stage=bool)
    check_options("test_cfg", dict(per_stage=True), per_stage=bool, mode=str)
    with pytest.raises(ValueError, match=r"test_cfg has \['x'\]; only mode, per_stage is known"):
        check_options("test_cfg", dict(x=1), per_stage=bool, mode=str)
    with pytest.raises(ValueError, match=r"test_cfg per_stage=0.5 must be True or False"):
        check_options("test_cfg", dict(per_stage=0.5), per_stage=bool)


def test_a_type_that_cannot_be_resolved():
    def build(dataset: "Nobody[int] | None" = None, count: "int | None" = None):  # noqa: F821
        pass

    arguments = dict(dataset="anything", count="3")
    assert list(misfits(build, arguments)) == ["count='3' must be an integer or None"]
