"""Lists of names in messages."""

from tvit_seg.listing import some


def test_some():
    assert some([]) == "none"
    assert some("abcde") == "a, b, c, d, e"
    assert some(iter("abcdefg")) == "a, b, c, d, e, ... and 2 more"
    assert some("abc", most=2, separator="\n  ") == "a\n  b\n  ... and 1 more"
