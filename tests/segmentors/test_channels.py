import pytest
from builders import LINEAR, segmentor

CONCAT = dict(in_channels=[32, 32], channels=64, in_index=[0, -1], input_transform="resize_concat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(in_channels=64, channels=64),
            r"decode_head in_channels=64 must be \[32\], those of the backbone",
        ),
        (dict(in_index=1), "decode_head in_index=1 names maps that there are not"),
        (
            dict(
                in_channels=[32, 16], channels=48, in_index=[0, 1], input_transform="resize_concat"
            ),
            r"decode_head in_channels=48 must be \[32, 32\]",
        ),
    ],
)
def test_heads_that_do_not_fit(change, message):
    maps = (0, 1) if "input_transform" in change else -1
    with pytest.raises(ValueError, match=message):
        segmentor(head={**LINEAR, **change}, backbone=dict(out_indices=maps))


def test_auxiliary_heads_are_looked_at():
    with pytest.raises(ValueError, match=r"auxiliary_head\[1\] in_channels=7 must be"):
        segmentor(auxiliary_head=[LINEAR, {**LINEAR, "in_channels": 7, "channels": 7}])


def test_heads_that_fit():
    segmentor(head={**LINEAR, **CONCAT}, backbone=dict(out_indices=(0, 1)))
    segmentor(head={**LINEAR, "in_index": -1}, backbone=dict(out_origin=True))
