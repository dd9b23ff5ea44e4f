"""Nested heads: mmseg's at full width, plain ones of half the width on leading slices below."""

import copy
import logging
import pickle

import pytest
import torch
from helpers.nested_heads import (
    HEADS,
    NECKS,
    WITH_STATISTICS,
    build,
    halves,
    maps,
    narrow_config,
    outputs,
    staged,
    widths,
)
from mmengine.model import revert_sync_batchnorm
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from tvit_seg.errors import ConfigError
from tvit_seg.models.decode_heads import nest, plain_head
from tvit_seg.thinking import StagedFeatures

every_head = pytest.mark.parametrize("name", HEADS)


def nested(name, config=None):
    stages = widths(name)
    return nest(build(config or HEADS[name]), stages[-1], stages)


def by_hand(name):
    """The plain head of half the width, with weights cut by hand."""
    plain = build(narrow_config(name))
    full = build(HEADS[name]).state_dict()
    shapes = {key: x.shape for key, x in plain.state_dict().items()}
    plain.load_state_dict({key: halves(name, key, full[key], shapes[key]) for key in shapes})
    return plain


def cut_to_stage(name, features):
    return [x[:, :width] for x, width in zip(features, widths(name)[0], strict=True)]


@every_head
def test_full_width_is_mmsegs(name):
    features = maps(name)
    expected = outputs(build(HEADS[name])(features))
    for given in (features, StagedFeatures(features, 1)):
        assert all(map(torch.equal, outputs(nested(name)(given)), expected))


@every_head
def test_narrow_stage_is_a_plain_head_cut_by_hand(name):
    features = staged(name, 0)
    found = outputs(nested(name)(features))
    expected = outputs(by_hand(name)(cut_to_stage(name, features)))
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x[:, : y.shape[1]], y)
        assert name in NECKS or x.shape == y.shape
        assert not x[:, y.shape[1] :].any()  # a neck pads


@every_head
def test_plain_head_of_one_stage(name):
    features = staged(name, 0)
    head = nested(name)
    published = plain_head(head, 0)
    plain = build(narrow_config(name))
    assert type(published) is type(plain)
    plain.load_state_dict(published.state_dict(), strict=True)
    found = outputs(plain(cut_to_stage(name, features)))
    for x, y in zip(found, outputs(head(features)), strict=True):
        torch.testing.assert_close(x, y[:, : x.shape[1]])


@every_head
def test_gradients_reach_leading_slices_alone(name):
    head = nested(name)
    shapes = {key: x.shape for key, x in build(narrow_config(name)).named_parameters()}
    sum(x.square().sum() for x in outputs(head(staged(name, 0)))).backward()
    for key, parameter in head.named_parameters():
        if parameter.grad is None:
            assert name == "fpn", key  # its fifth level is pooled
            continue
        inside = halves(name, key, parameter.grad, shapes[key])
        assert inside.any(), key
        assert inside.count_nonzero() == parameter.grad.count_nonzero(), key


@every_head
def test_batch_mates_change_nothing(name):
    head = nested(name)
    wide, narrow = staged(name, 1), staged(name, 0)
    mixed = [torch.stack((x[0], y[1], x[2])) for x, y in zip(wide, narrow, strict=True)]
    found = outputs(head(StagedFeatures(mixed, torch.tensor([1, 0, 1]))))
    for x, y, z in zip(found, outputs(head(wide)), outputs(head(narrow)), strict=True):
        torch.testing.assert_close(x, torch.stack((y[0], z[1], y[2])))


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_statistics_of_stages_are_apart(name):
    head = nested(name)
    for stage in (0, 1):
        before = copy.deepcopy(head.state_dict())
        other = outputs(head(staged(name, 1 - stage)))
        head.train()(staged(name, stage))
        changed = {key for key, x in head.state_dict().items() if not torch.equal(x, before[key])}
        assert changed
        assert all(("stage0" in key) == (stage == 0) for key in changed)
        assert all(map(torch.equal, outputs(head.eval()(staged(name, 1 - stage))), other))


def test_narrow_training_is_that_of_the_plain_head():
    head, plain = nested("psp").train(), by_hand("psp").train()
    features = staged("psp", 0)
    torch.testing.assert_close(head(features), plain(cut_to_stage("psp", features)))
    statistics = plain_head(head, 0).state_dict()
    for key, x in plain.state_dict().items():
        torch.testing.assert_close(statistics[key], x)


def test_single_image_of_a_stage_in_training():
    head = nested("psp").train()
    for stages in ([0, 1, 1], [0, 0, 1]):
        head(StagedFeatures(maps("psp"), torch.tensor(stages)))
    assert all(module.training for module in head.modules())


@every_head
@pytest.mark.parametrize("load", [nn.Module.load_state_dict, load_state_dict])
def test_weights_of_plain_head_and_back(name, load, caplog):
    plain, head = build(HEADS[name]), nested(name)
    with torch.no_grad():
        for x in (*plain.parameters(), *plain.buffers()):
            x.add_(1)
    with caplog.at_level(logging.WARNING):
        load(head, plain.state_dict(), strict=True)
    for key, x in plain_head(head, 0).state_dict().items():
        torch.testing.assert_close(x, halves(name, key, plain.state_dict()[key], x.shape))
    back = build(HEADS[name])
    missing = nn.Module.load_state_dict(back, head.state_dict(), strict=False)
    assert not missing.missing_keys
    assert bool(missing.unexpected_keys) == (name in WITH_STATISTICS)
    assert all(".stage0." in key for key in missing.unexpected_keys)


def test_own_statistics_are_loaded():
    head = nested("fcn").train()
    head(staged("fcn", 0))
    other = nested("fcn")
    other.load_state_dict(head.state_dict(), strict=True)
    torch.testing.assert_close(other(staged("fcn", 0)), head.eval()(staged("fcn", 0)))


def test_converted_norms_keep_statistics():
    config = {**HEADS["uper"], "norm_cfg": dict(type="SyncBN")}
    head = nested("uper", config)
    expected = head(staged("uper", 0))
    head = revert_sync_batchnorm(head)
    torch.testing.assert_close(head(staged("uper", 0)), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copy_is_independent(copied):
    head = nested("uper")
    twin = copied(head)
    assert torch.equal(twin(staged("uper", 0)), head(staged("uper", 0)))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert head(staged("uper", 0)).any()
    assert not twin(staged("uper", 0)).any()


@pytest.mark.parametrize(
    ("config", "layer"),
    [
        (dict(type="GCHead"), "channel_add_conv.1"),
        (dict(type="EMAHead", ema_channels=32, num_bases=8, num_stages=2, momentum=0.1), "ema_mid"),
        (
            dict(type="FCNHead", channels=24, norm_cfg=dict(type="GN", num_groups=3)),
            r"convs.0.gn: .*groups",
        ),
    ],
)
def test_head_that_cannot_be_nested(config, layer):
    config = {**HEADS["fcn"], **config}
    config.pop("num_convs")
    with pytest.raises(ConfigError, match=f"{config['type']} cannot be nested, at .*{layer}"):
        nested("fcn", config)
