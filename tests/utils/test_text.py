"""Parts of messages."""

from tvit_seg.utils.text import first_line, some


def test_some():
    assert some([]) == "none"
    assert some("abcde") == "a, b, c, d, e"
    assert some(iter("abcdefg")) == "a, b, c, d, e, ... and 2 more"
    assert some("abc", most=2, separator="\n  ") == "a\n  b\n  ... and 1 more"


def test_first_line():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError("abcdef"), most=3) == "abc"
    assert first_line(KeyError()) == "KeyError"
