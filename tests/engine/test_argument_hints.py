import pytest

from tvit_seg.engine.argument_hints import hints


class Head:
    def __init__(self, channels, size: int = 1, norm_cfg=None):
        pass


@pytest.mark.parametrize(
    ("arguments", "error", "text", "found"),
    [
        (dict(size="x"), TypeError(), "oh", ["by its signature size='x' must be an integer"]),
        (dict(size="x"), TypeError(), "oh in `size / 2`", []),  # is named already
        (dict(size="x"), ValueError(), "oh", []),  # speaks for itself
        (dict(channels="4"), TypeError(), "oh", ["channels='4' is a text"]),
        (dict(channels="many"), TypeError(), "oh", []),
        (dict(norm_cfg=3), AssertionError(), "oh", ["norm_cfg=3 is no dict"]),
        (dict(norm_cfg={}), KeyError(), 'must have "type"', ["not in norm_cfg={}"]),
        (dict(norm_cfg=dict(type="BN")), KeyError(), 'must have "type"', []),
        (
            dict(norm_cfg=dict(type="no")),
            ValueError(),
            "Cannot find None in registry",
            ["norm_cfg has type='no'"],
        ),
        (dict(norm_cfg=dict(type="BN")), ValueError(), "Cannot find None in registry", []),
        (dict(norm_cfg=dict(type=7)), TypeError(), "of Registry.get", ["norm_cfg has type=7"]),
    ],
)
def test_hints(arguments, error, text, found):
    assert hints(error, text, arguments, Head) == found


def test_without_a_component():
    assert hints(TypeError(), "oh", dict(size="x"), None) == []
