"""Command-line arguments that say how to read a file of weights."""

import argparse

import pytest

from tvit_seg.engine.cli_weights import add_weights_arguments, architecture_options


@pytest.fixture
def parse():
    parser = argparse.ArgumentParser()
    add_weights_arguments(parser)
    return lambda line: parser.parse_args(line.split())


@pytest.mark.parametrize(
    ("text", "stages"),
    [("3 6", [3, 6]), ("3,3,6,12 3,6,12,24", [(3, 3, 6, 12), (3, 6, 12, 24)]), ("3,6", [(3, 6)])],
)
def test_stages(parse, text, stages):
    assert parse(f"--thinking-stages {text}").thinking_stages == stages


def test_nothing_is_told_by_default(parse):
    args = parse("")
    assert args.thinking_stages is args.slicing is args.head_dim is args.ema is None
    assert parse("--ema").ema is True
    assert parse("--raw").ema is False


VIT = dict(thinking_stages=[1, 2], embed_dims=64, num_heads=2)
SWIN = dict(thinking_stages=[[1, 1], [1, 2]], embed_dims=32, num_heads=[1, 2], slicing="leading")


@pytest.mark.parametrize(
    ("line", "recorded", "expected"),
    [
        ("", {}, (64, None, None)),
        ("", VIT, (32, [1, 2], None)),
        ("--head-dim 16 --thinking-stages 2 4", VIT, (16, [2, 4], None)),
        ("", SWIN, (64, [[1, 1], [1, 2]], "leading")),
        ("--slicing grouped", SWIN, (64, [[1, 1], [1, 2]], "grouped")),
    ],
)
def test_the_command_line_goes_before_the_record(parse, line, recorded, expected):
    options = architecture_options(parse(line), recorded)
    assert options == dict(zip(("head_dim", "thinking_stages", "slicing"), expected, strict=True))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--thinking-stages 3;6", "'3;6' must be heads such as 3"),
        ("--thinking-stages 3,", "'3,' must be heads such as 3"),
        ("--slicing other", "invalid choice: 'other'"),
        ("--ema --raw", "not allowed with argument"),
    ],
)
def test_bad_input(parse, capsys, line, message):
    with pytest.raises(SystemExit):
        parse(line)
    assert message in capsys.readouterr().err
