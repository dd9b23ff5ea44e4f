"""timm's interface of models."""

import pytest
import timm
import torch
from helpers.contracts import close
from timm.models import group_parameters

from tvit_seg import FixedGate, RandomGate, stage_macs
from tvit_seg.errors import CheckpointError, ConfigError

VIT = dict(img_size=32, patch_size=8, embed_dim=32, num_heads=4, depth=3, thinking_stages=(2, 4))
SWIN = dict(
    img_size=64,
    embed_dim=16,
    num_heads=(2, 4, 8),
    depths=(1, 2, 1),
    thinking_stages=((1, 2, 4), (2, 4, 8)),
    window_size=4,
)
MODELS = {
    "thinkingvit_3h_6h": VIT,
    "thinkingvit_dinov3_small": {**VIT, "init_values": 0.5},
    "thinkingswin_tiny": SWIN,
}
BOTH = pytest.mark.parametrize("name", MODELS)


@pytest.fixture
def without_grad():
    with torch.no_grad():
        yield


def build(name, **kwargs):
    """A small model with recycling that does something."""
    model = timm.create_model(name, **{**MODELS[name], "num_classes": 20, **kwargs})
    with torch.no_grad():
        for recycle in getattr(model, "model", model).recycle:
            recycle.scale.fill_(0.7)
    return model.eval()


def images(count=4, size=(64, 64), channels=3):
    return torch.randn(count, channels, *size)


def half(model, batch):
    """The model with a gate that stops half of the batch after the first stage."""
    model.set_gate(RandomGate(0.5, seed=0))
    assert 0 < model.think(batch).exit_stage.sum() < len(batch)
    return model


@BOTH
@pytest.mark.usefixtures("without_grad")
class TestClassifying:
    def test_gated_logits_are_those_of_the_exit_stage(self, name):
        batch = images(6)
        model = half(build(name), batch)
        stages = [out.logits for out in model.forward_stages(batch)]
        exits = model.think(batch).exit_stage
        expected = torch.stack([stages[s][i] for i, s in enumerate(exits.tolist())])
        close(model(batch), expected)
        close(model(batch), model.forward_head(model.forward_features(batch)))
        close(torch.cat([model(image[None]) for image in batch]), expected)

    def test_a_threshold_counts_ten_classes(self, name):
        model = build(name, threshold=0.3)
        assert (model.gate.threshold, model.gate.topk) == (0.3, 10)
        model.reset_classifier(7)
        assert model.gate.topk is None
        model.reset_classifier(30)
        assert model.gate.topk == 10
        assert (build(name, threshold=99).think(images()).exit_stage == 0).all()
        assert (build(name, threshold=0).think(images()).exit_stage == 1).all()

    def test_the_head_is_replaced(self, name):
        model = build(name)
        batch = images(2)
        assert model.get_classifier() is model.head
        before = model.forward_head(model.forward_features(batch), pre_logits=True)
        model.reset_classifier(5)
        assert model.get_classifier().out_features == model.num_classes == 5
        assert model(batch).shape == (2, 5)
        model.reset_classifier(0)
        close(model(batch), before)
        assert isinstance(model.get_classifier(), torch.nn.Identity)
        assert before.shape == (2, model.num_features)
        model.reset_classifier(0, "")
        assert model(batch).shape == model.forward_features(batch).shape
        assert build(name, num_classes=0)(batch).shape == (2, model.num_features)

    def test_no_number_of_classes(self, name):
        model = build(name)
        with pytest.raises(ConfigError, match="num_classes must be an integer"):
            model.reset_classifier(-1)
        assert model(images(2)).shape == (2, 20)

    def test_a_gate_keeps_its_head(self, name):
        model = build(name, threshold=1.0)
        with pytest.raises(ConfigError, match="num_classes must be >= 1"):
            model.reset_classifier(0)
        assert model(images(2)).shape == (2, 20)
        model.set_gate(None)
        model.reset_classifier(0)

    def test_head_and_gate_read_pooled_tokens(self, name):
        batch = images()
        for kind in type(build(name)).pools:
            model = build(name, global_pool=kind)
            tokens = model.forward_features(batch)
            flat = tokens.flatten(1, -2)[:, model.num_prefix_tokens :]
            expected = dict(
                token=tokens[:, 0],
                avg=flat.mean(dim=1),
                max=flat.amax(dim=1),
                avgmax=(flat.mean(dim=1) + flat.amax(dim=1)) / 2,
            )[kind]
            close(model.forward_head(tokens, pre_logits=True).flatten(1), expected.flatten(1))
            close(model.think(batch).logits, model(batch))

    def test_other_sizes_and_channels(self, name):
        model = build(name, in_chans=4)
        assert model(images(1, (50, 70), channels=4)).shape == (1, 20)
        assert stage_macs(model, (64, 64)) == sorted(stage_macs(model, (64, 64)))


@BOTH
@pytest.mark.usefixtures("without_grad")
class TestFeatures:
    def test_features_only(self, name):
        model = build(name, features_only=True, out_indices=(0, 2))
        assert model.feature_info.out_indices in ((0, 2), [0, 2])
        batch = images(2, (64, 96))
        maps = model(batch)
        assert isinstance(maps, list)
        info = zip(model.feature_info.channels(), model.feature_info.reduction(), strict=True)
        expected = [(2, width, 64 // step, 96 // step) for width, step in info]
        assert [tuple(x.shape) for x in maps] == expected

    def test_default_features(self, name):
        assert len(build(name, features_only=True)(images(1))) == 3
        with pytest.raises(ConfigError, match="feature_cls must be"):
            build(name, features_only=True, feature_cls="hook")

    def test_maps_are_those_of_the_exit_stage(self, name):
        batch = images(6)
        model = half(build(name, features_only=True).model, batch)
        maps = model.forward_intermediates(batch, indices=[1], intermediates_only=True)[0]
        for stage in range(2):
            model.set_gate(FixedGate(stage))
            alone = model.forward_intermediates(batch, indices=[1], intermediates_only=True)[0]
            half(model, batch)
            rows = model.think(batch).exit_stage == stage
            close(maps[rows], alone[rows])

    def test_a_gate_that_reads_the_prediction_keeps_the_head(self, name):
        assert build(name, features_only=True).model.head is None
        model = build(name, features_only=True, threshold=99.0).model
        assert model.head is not None
        assert (model.think(images()).exit_stage == 0).all()


@torch.no_grad()
def test_a_vits_own_outputs():
    model = build("thinkingvit_3h_6h")
    batch = images(2, (32, 48))
    pairs = model.forward_intermediates(
        batch, indices=2, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )
    assert [(a.shape, b.shape) for a, b in pairs] == [((2, 24, 32), (2, 1, 32))] * 2
    found = model.forward_intermediates(batch, output_dict=True, return_prefix_tokens=True)
    assert found["image_features"].shape == (2, 25, 32)
    assert len(found["image_intermediates"]) == len(found["image_intermediates_prefix"]) == 3


@BOTH
class TestTraining:
    def test_every_parameter_learns_from_the_prediction_alone(self, name):
        model = build(name).train()
        model(images(2)).square().mean().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []

    def test_sampled_predictions_estimate_the_joint_loss(self, name):
        model = build(name, loss_weights=[0.25, 0.75], drop_path_rate=0.0).train()
        batch, labels = images(8, (32, 32)), torch.arange(8)
        loss = torch.nn.functional.cross_entropy
        with torch.no_grad():
            stages = [loss(out.logits, labels) for out in model.forward_stages(batch)]
            joint = 0.25 * stages[0] + 0.75 * stages[1]
            sampled = torch.stack([loss(model(batch), labels) for _ in range(100)])
        assert abs(sampled.mean() - joint) < 4 * sampled.std() / 100**0.5 + 1e-6

    def test_joint_gives_all_stages(self, name):
        model = build(name, joint=True, drop_path_rate=0.0)
        batch = images(2)
        logits = model.train()(batch)
        assert [x.shape for x in logits] == [(2, 20)] * 2
        for x, out in zip(logits, model.forward_stages(batch), strict=True):
            close(x, out.logits)
        assert model.eval()(batch).shape == (2, 20)

    def test_layers_and_weight_decay(self, name):
        model = build(name)
        names = dict(model.named_parameters())
        assert model.no_weight_decay() <= names.keys()
        assert model.no_weight_decay()
        layers = group_parameters(model, model.group_matcher(), reverse=True)
        assert layers.keys() == names.keys()
        assert layers["patch_embed.proj.weight"] == 0
        assert layers["head.weight"] == max(layers.values())
        coarse = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
        assert max(coarse.values()) <= max(layers.values())


class TestWeights:
    def deit(self, **kwargs):
        options = dict(img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2)
        return timm.models.VisionTransformer(**options, num_classes=20, **kwargs)

    @pytest.mark.parametrize("way", ["checkpoint_path", "file"])
    def test_others_weights_are_converted(self, tmp_path, way):
        path, deit = tmp_path / "deit.pth", self.deit()
        torch.save({"model": deit.state_dict()}, path)
        if way == "file":
            model = build(
                "thinkingvit_3h_6h", pretrained=True, pretrained_cfg_overlay=dict(file=str(path))
            )
        else:
            model = build("thinkingvit_3h_6h", checkpoint_path=str(path))
        model.set_gate(FixedGate(0))
        batch = images(2, (32, 32))
        close(model(batch), deit.eval()(batch))

    @pytest.mark.parametrize("channels", [1])
    def test_channels_are_adapted(self, tmp_path, channels):
        path, deit = tmp_path / "deit.pth", self.deit()
        torch.save(deit.state_dict(), path)
        overlay = dict(file=str(path))
        options = dict(pretrained=True, pretrained_cfg_overlay=overlay, in_chans=channels)
        model = build("thinkingvit_3h_6h", num_classes=5, **options)
        weight = model.patch_embed.proj.weight[:16].detach()
        close(weight.sum(dim=1), deit.patch_embed.proj.weight.detach().sum(dim=1))

    @pytest.mark.parametrize("way", ["pretrained_cfg", "pretrained_cfg_overlay"])
    def test_own_weights_of_a_file_are_fitted(self, tmp_path, way):
        path = str(tmp_path / "ours.pth")
        torch.save(build("thinkingvit_3h_6h").state_dict(), path)
        options = {"pretrained": True, "num_classes": 5, "img_size": 64, way: dict(file=path)}
        assert build("thinkingvit_3h_6h", **options)(images(2)).shape == (2, 5)

    def test_own_weights_are_loaded_strictly(self, tmp_path):
        model = build("thinkingvit_3h_6h")
        weights = model.state_dict()
        torch.save(weights, tmp_path / "whole.pth")
        again = build("thinkingvit_3h_6h", checkpoint_path=str(tmp_path / "whole.pth"))
        batch = images(2, (32, 32))
        close(again(batch), model(batch))
        del weights["norm.weight"]
        with pytest.raises(RuntimeError, match=r"Missing key.*norm.weight"):
            model.load_state_dict(weights)

    def test_weights_that_do_not_fit_are_refused(self):
        model = build("thinkingvit_3h_6h")
        resnet = timm.create_model("resnet10t", pretrained=False)
        with pytest.raises(CheckpointError, match="unknown kind"):
            model.load_state_dict(resnet.state_dict())
        with pytest.raises(CheckpointError, match="another network: blocks"):
            build("thinkingvit_3h_6h", depth=12).load_state_dict(self.deit().state_dict())


@pytest.mark.parametrize(
    ("options", "error", "field"),
    [
        (dict(global_pool="map"), ConfigError, "global_pool"),
        (dict(threshold=1, gate=FixedGate(0)), ConfigError, "gate must be None"),
        (dict(threshold=1, num_classes=0), ConfigError, "num_classes"),
        (dict(in_chans=0), ConfigError, "in_chans"),
        (dict(no_such_argument=1), TypeError, "no argument 'no_such_argument'"),
    ],
)
def test_bad_arguments(options, error, field):
    with pytest.raises(error, match=field):
        build("thinkingvit_3h_6h", **options)


@BOTH
def test_bad_formats(name):
    with pytest.raises(ConfigError, match="output_fmt must be one of 'NCHW'"):
        build(name).forward_intermediates(images(1), output_fmt="NHWC")
