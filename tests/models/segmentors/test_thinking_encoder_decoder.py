"""The segmentor that trains all stages and lets a gate choose."""

import copy

import pytest
import torch
from helpers.builders import LINEAR, MASK, SLIDE, VIT, batch, segmentor
from helpers.contracts import close
from mmengine import ConfigDict
from mmseg.models import FCNHead
from mmseg.registry import MODELS

from tvit_seg import (
    BudgetGate,
    EntropyGate,
    FixedGate,
    PixelEntropyGate,
    RandomGate,
    ThinkingEncoderDecoder,
    stage_macs,
)
from tvit_seg.errors import CheckpointError, ConfigError
from tvit_seg.models.gates.functional import pixel_entropy
from tvit_seg.weights.load import strict_loading

AUXILIARY = dict(type="FCNHead", num_convs=1, in_channels=32, channels=8, num_classes=5, in_index=0)


@pytest.mark.parametrize("head", [LINEAR, MASK], ids=["linear", "mask"])
def test_joint_loss_is_the_weighted_sum_over_stages(head):
    model = segmentor(head=head, loss_weights=[0.25, 2.0])
    images, data_samples = batch()
    losses = model.loss(images, data_samples)
    outputs = model.backbone.forward_stages(images)
    for stage, (weight, output) in enumerate(zip([0.25, 2.0], outputs, strict=True)):
        alone = model.decode_head.loss(output.features, data_samples, None)
        close(losses[f"stage{stage}.decode.loss_ce"], weight * alone["loss_ce"])
        close(losses[f"stage{stage}.decode.acc_seg"], alone["acc_seg"])


@pytest.mark.parametrize("head", [LINEAR, MASK], ids=["linear", "mask"])
@pytest.mark.parametrize("nested", [False, True])
@torch.no_grad()
def test_a_gate_at_token_resolution_reads_what_the_head_gives(head, nested):
    gate = dict(type="PixelEntropyGate", threshold=0, resolution="token")
    model = segmentor(gate, head, nested_head=nested)
    images = batch()[0]
    entropies = [
        pixel_entropy(model.decode_head(output.features))
        for output in model.backbone.iter_stages(images)
    ]
    thought = model.think(images)
    close(thought.entropy, torch.stack(entropies, dim=1))
    model.backbone.gate.threshold = float(entropies[0].mean())
    mixed = model.think(images)
    assert set(mixed.exit_stage.tolist()) == {0, 1}
    for i, stage in enumerate(mixed.exit_stage):
        alone = model.think(images[i : i + 1], FixedGate(int(stage)))
        close(mixed.seg_logits[i : i + 1], alone.seg_logits)


@torch.no_grad()
def test_pixels_are_decoded_once():
    model = segmentor(dict(type="PixelEntropyGate", threshold=1e9, resolution="token"))
    decoded = []
    model.predict(*batch())  # counts the cost of a stage
    model.decode_head.register_forward_hook(lambda *_: decoded.append(1))
    model.predict(*batch())
    assert len(decoded) == 1


def test_a_head_that_upsamples_itself_has_no_token_resolution():
    @MODELS.register_module(force=True)
    class OwnUpsampling(FCNHead):
        def predict_by_feat(self, seg_logits, batch_img_metas):
            return super().predict_by_feat(2 * seg_logits, batch_img_metas)

    head = dict(LINEAR, type="OwnUpsampling")
    model, images = segmentor(head=head), batch()[0]
    plain = segmentor(head=dict(LINEAR, type="FCNHead"))
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.think(images).seg_logits, 2 * plain.think(images).seg_logits)
    with pytest.raises(ConfigError, match="resolution must be 'input' for OwnUpsampling"):
        segmentor(dict(type="PixelEntropyGate", threshold=1, resolution="token"), head)


@pytest.mark.parametrize("target", ["presence", "histogram"])
@pytest.mark.parametrize("head", [LINEAR, MASK], ids=["linear", "mask"])
def test_gradients_reach_every_parameter(head, target):
    model = segmentor(
        head=head, image_loss=dict(target=target), auxiliary_head=[AUXILIARY, AUXILIARY]
    ).train()
    losses = model.loss(*batch())
    assert {name.split(".")[1] for name in losses} == {"decode", "aux_0", "aux_1", "image"}
    total, log = model.parse_losses(losses)
    total.backward()
    assert {"stage0.decode.loss_ce", "stage1.decode.loss_ce", "stage1.image.loss"} <= set(log)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_training_ignores_what_padding_adds():
    """An image whose size is no multiple of the patch is compared where it has pixels."""
    model = segmentor()
    images, data_samples = batch(size=(27, 30))
    losses = model.loss(images, data_samples)
    logits = model.think(images, FixedGate(1)).seg_logits
    labels = torch.stack([s.gt_sem_seg.data[0] for s in data_samples])
    expected = torch.nn.functional.cross_entropy(logits, labels, ignore_index=255)
    close(losses["stage1.decode.loss_ce"], 0.5 * expected)


@torch.no_grad()
def test_records_of_thinking_in_whole_mode():
    model = segmentor(EntropyGate(1e9))
    result = model.predict(*batch(1))[0]
    costs = [macs / 1e9 for macs in stage_macs(model, (32, 32))]
    assert result.exit_stage.shape == ()
    assert result.gmacs == pytest.approx(costs[0])
    assert result.gate_entropy.shape == (2,)
    assert torch.isfinite(result.gate_entropy[0])
    assert torch.isnan(result.gate_entropy[1])
    assert result.windows.tolist() == [[0, 0, 1, 1]]
    model.backbone.set_gate(None)
    assert model.predict(*batch(1))[0].gmacs == pytest.approx(costs[1])


@pytest.mark.parametrize("window_batch_size", [1, 3])
@torch.no_grad()
def test_slide_equals_mmseg(window_batch_size):
    """Same windows, same sum: mmseg's own loop over the same model."""
    test_cfg = dict(SLIDE, window_batch_size=window_batch_size)
    model = segmentor(RandomGate(0.5, seed=2), test_cfg=test_cfg)
    images, _ = batch(2, (70, 61))
    mine = model.inference(images)
    metas = [dict(img_shape=(70, 61), ori_shape=(70, 61))] * 2
    close(mine, super(ThinkingEncoderDecoder, model).slide_inference(images, metas))


@torch.no_grad()
def test_windows_exit_on_their_own():
    model = segmentor(RandomGate(0.5, seed=2), test_cfg=SLIDE)
    images, data_samples = batch(2, (70, 61))
    results = model.predict(images, data_samples)
    costs = torch.tensor(stage_macs(model, (32, 32))) / 1e9
    for result in results:
        assert result.windows.shape == (9, 4)
        assert result.exit_stage.shape == (9,)
        assert set(result.exit_stage.tolist()) == {0, 1}
        assert result.gate_entropy.shape == (9, 2)
        assert result.gmacs == pytest.approx(costs[result.exit_stage].sum().item())
        top, left, bottom, right = (result.windows[-1] * torch.tensor([70, 61, 70, 61])).tolist()
        assert [top, left, bottom, right] == pytest.approx([38, 29, 70, 61])


@torch.no_grad()
def test_stopped_windows_are_not_computed_further():
    model = segmentor(RandomGate(0.5, seed=2), test_cfg=SLIDE)
    images, _ = batch(1, (70, 61))
    model.predict(images)  # counts the cost, by running the model without data
    runs = []
    model.backbone.blocks[0].register_forward_pre_hook(lambda _, args: runs.append(len(args[0])))
    result = model.predict(images)[0]
    assert sum(runs) == 9 + (result.exit_stage > 0).sum()


@torch.no_grad()
def test_pixel_gate_decodes_each_stage_once():
    model = segmentor(dict(type="PixelEntropyGate", threshold=0))
    calls = []
    forward = model.decode_head.forward
    # mmseg's heads call forward() directly, past any hook
    model.decode_head.forward = lambda maps: calls.append(len(maps[0])) or forward(maps)
    images, _ = batch(3)
    thought = model.think(images)
    assert calls == [3, 3]
    assert torch.isfinite(thought.entropy).all()
    close(thought.seg_logits, model.think(images, FixedGate(1)).seg_logits)
    calls.clear()
    model.think(images, FixedGate(0))
    assert calls == [3]


@torch.no_grad()
def test_pixel_gate_mixed_batch():
    model = segmentor()
    images, _ = batch(6)
    model.backbone.set_gate(dict(type="PixelEntropyGate", threshold=0), has_decode_head=True)
    threshold = model.think(images).entropy[:, 0].median() + 1e-6
    model.backbone.gate.threshold = float(threshold)
    thought = model.think(images)
    assert sorted(thought.exit_stage.tolist()) == [0, 0, 0, 1, 1, 1]
    for i, stage in enumerate(thought.exit_stage.tolist()):
        alone = model.think(images[i : i + 1], FixedGate(stage)).seg_logits
        close(thought.seg_logits[i : i + 1], alone)


@torch.no_grad()
def test_tensor_mode_and_features():
    model = segmentor()
    images, _ = batch()
    assert model(images, mode="tensor").shape == (2, 5, 4, 4)
    assert model.extract_feat(images)[0].shape == (2, 32, 4, 4)
    assert model.encode_decode(images).shape == (2, 5, 32, 32)
    model.backbone.set_gate(dict(type="PixelEntropyGate", threshold=1.0), has_decode_head=True)
    assert model(images, mode="tensor").shape == (2, 5, 4, 4)


@pytest.mark.parametrize(
    ("head", "out_indices"),
    [
        (dict(type="PSPHead", in_channels=32, channels=8, pool_scales=(1, 2)), -1),
        (
            dict(
                type="UPerHead",
                in_channels=[32, 32],
                in_index=[0, 1],
                pool_scales=(1, 2),
                channels=8,
            ),
            (0, 1),
        ),
        (dict(type="SegformerHead", in_channels=[32, 32], in_index=[0, 1], channels=8), (0, 1)),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("kind", ["ThinkingEncoderDecoder", "EncoderDecoder"])
def test_mmseg_heads(kind, head, out_indices):
    """A training step and a test, in segmentors that know of stages and others."""
    model = MODELS.build(
        dict(
            type=kind,
            backbone=dict(
                VIT, out_indices=out_indices, gate=dict(type="EntropyGate", threshold=1.6)
            ),
            decode_head=dict(head, num_classes=5),
            test_cfg=ConfigDict(mode="whole"),
        )
    ).train()
    images, data_samples = batch(4)
    total, _ = model.parse_losses(model.loss(images, data_samples))
    total.backward()
    assert model.backbone.cls_token.grad.abs().sum() > 0
    model.eval()
    with torch.no_grad():
        result = model.predict(images, data_samples)[0]
    assert result.pred_sem_seg.data.shape == (1, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (dict(loss_weights=[1.0]), "loss_weights"),
        (dict(gate=dict(type="EntropyGate", threshold=1, topk=6)), "gate topk"),
        (dict(image_loss=dict(target="colour")), "image_loss target"),
        (dict(image_loss=dict(loss_weight=-1)), "image_loss loss_weight"),
        (dict(image_loss={}, backbone=dict(num_classes=3)), "backbone num_classes"),
        (
            dict(image_loss=dict(target="presence"), gate=dict(type="EntropyGate", threshold=1)),
            "use_sigmoid must be True",
        ),
        (dict(test_cfg=dict(mode="tile")), "test_cfg mode"),
        (dict(test_cfg=dict(mode="slide")), "test_cfg crop_size"),
        (dict(test_cfg=dict(SLIDE, stride=(33, 32))), "test_cfg stride"),
        (dict(test_cfg=dict(SLIDE, window_batch_size=0)), "window_batch_size"),
        (dict(data_preprocessor=dict(type="SegDataPreProcessor", size=(32,))), "size"),
    ],
)
def test_bad_arguments(arguments, field):
    arguments = copy.deepcopy(arguments)
    backbone = dict(VIT, gate=arguments.pop("gate", None), **arguments.pop("backbone", {}))
    with pytest.raises(ConfigError, match=field):
        ThinkingEncoderDecoder(backbone=backbone, decode_head=LINEAR, **arguments)


def test_a_backbone_that_does_not_think():
    with pytest.raises(ConfigError, match=r"backbone must be a thinking one .*VisionTransformer"):
        ThinkingEncoderDecoder(
            backbone=dict(type="VisionTransformer", embed_dims=32, num_heads=4, num_layers=1),
            decode_head=LINEAR,
        )


def test_an_image_head_that_nothing_trains_is_frozen():
    """Else several processes would wait for its gradient."""
    assert not segmentor().backbone.head.weight.requires_grad
    assert segmentor(image_loss={}).backbone.head.weight.requires_grad


@torch.no_grad()
def test_one_channel_has_a_pixel_entropy():
    head = dict(LINEAR, num_classes=2, out_channels=1, threshold=0.5)
    model = segmentor(dict(type="PixelEntropyGate", threshold=0.5), head)
    thought = model.think(torch.randn(3, 3, 32, 32))
    assert (thought.entropy[:, 0] > 0.1).all()
    assert model.predict(torch.randn(1, 3, 32, 32))[0].pred_sem_seg.data.shape == (1, 32, 32)


@torch.no_grad()
def test_windows_lie_on_the_image_without_its_padding():
    model = segmentor(test_cfg=dict(SLIDE, stride=(32, 32)))
    images, data_samples = batch(1, (64, 64))
    data_samples[0].set_metainfo(dict(img_padding_size=[0, 32, 0, 16], ori_shape=(48, 32)))
    result = model.predict(images, data_samples)[0]
    assert result.pred_sem_seg.data.shape == (1, 48, 32)
    expected = [[0, 0, 2 / 3, 1], [0, 1, 2 / 3, 1], [2 / 3, 0, 1, 1], [2 / 3, 1, 1, 1]]
    torch.testing.assert_close(result.windows, torch.tensor(expected))


def test_init_cfg_reads_a_whole_segmentor(tmp_path):
    source = segmentor(head=MASK)
    path = tmp_path / "segmentor.pth"
    torch.save(dict(state_dict=source.state_dict()), path)
    model = segmentor(head=MASK, init_cfg=dict(type="Pretrained", checkpoint=str(path)))
    model.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


class Marker:
    """A pickle that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("where", ["segmentor", "head"])
def test_code_in_a_checkpoint_does_not_run(tmp_path, where):
    path, marker = tmp_path / "bad.pth", tmp_path / "ran"
    torch.save(dict(state_dict=segmentor().state_dict(), extra=Marker(marker)), path)
    init_cfg = dict(type="Pretrained", checkpoint=str(path))
    model = segmentor(
        head=dict(LINEAR, init_cfg=init_cfg) if where == "head" else LINEAR,
        init_cfg=init_cfg if where == "segmentor" else None,
    )
    # mmengine's own loader reads what a head names; our runner makes it strict
    with pytest.raises(CheckpointError, match="not executed"), strict_loading():
        model.init_weights()
    assert not marker.exists()


def test_config_is_not_changed():
    config = dict(backbone=dict(VIT, gate=dict(type="FixedGate", stage=0)), decode_head=LINEAR)
    before = copy.deepcopy(config)
    ThinkingEncoderDecoder(**config)
    assert config == before


def test_a_budget_is_checked_and_counted_by_its_inner_gate():
    inner = dict(type="EntropyGate", threshold=0.5)
    with pytest.raises(ConfigError, match="use_sigmoid must be True"):
        segmentor(
            dict(type="BudgetGate", gate=inner, think_shares=0.5),
            image_loss=dict(target="presence"),
        )
    model = segmentor(BudgetGate(EntropyGate(0.5), 0.5))
    windows = model.windows(torch.zeros(1, 3, 32, 32))
    once = model.stage_gmacs(windows)
    model.backbone.set_gate(BudgetGate(PixelEntropyGate(0.5), 0.5), has_decode_head=True)
    always = model.stage_gmacs(windows)
    assert always[0] == once[0] and always[1] > once[1]
