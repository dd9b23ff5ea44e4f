"""Command-line arguments that say how to read a file of weights."""

import argparse

import pytest
import torch
from helpers.builders import classifier

from tvit_seg.engine.cli_weights import add_weights_arguments, read_weights
from tvit_seg.weights.publish import record_backbone


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


@pytest.mark.parametrize(
    ("line", "heads"),
    [("", (2, 4)), ("--head-dim 16", (1, 2)), ("--head-dim 16 --thinking-stages 1 2", (1, 2))],
)
def test_the_command_line_goes_before_the_record(parse, tmp_path, line, heads):
    model = classifier()
    record = dict(record_backbone(model), thinking_stages=None)
    checkpoint = dict(state_dict=model.state_dict(), meta=dict(backbone=record))
    torch.save(checkpoint, tmp_path / "w.pth")
    args = parse(line)
    args.source = tmp_path / "w.pth"
    weights, origin, backbone = read_weights(args)
    assert backbone["thinking_stages"] == heads
    assert origin["source"]["file"] == "w.pth"
    assert len(weights) == len(model.state_dict())


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
