"""Contract of every thinking backbone, whatever its architecture."""

import copy
from collections import Counter

import pytest
import torch

from tvit_seg import EntropyGate, FixedGate, RandomGate
from tvit_seg.errors import ConfigError
from tvit_seg.models.layers import NestedLayerNorm

SIZES = [(48, 96), (50, 41), (17, 70)]


def close(a, b, atol=1e-5):
    """Asserts that two tensors agree."""
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


class BackboneContract:
    """Subclasses build a small backbone with an image-level head and ``num_stages`` stages."""

    num_stages = 2

    def build(self, **kwargs):
        """A small backbone in eval mode whose stages differ; takes the backbone's arguments."""
        raise NotImplementedError

    def lively(self, **kwargs):
        """A backbone whose recycling already does something."""
        backbone = self.build(**kwargs)
        with torch.no_grad():
            for recycle in backbone.recycle:
                recycle.scale.fill_(0.7)
        return backbone

    def count_images(self, backbone):
        """Counts the images that each stage runs on."""
        counts = Counter()
        run_stage = backbone.run_stage

        def counting(stage, embedding, *args):
            counts[stage] += len(embedding)
            return run_stage(stage, embedding, *args)

        backbone.run_stage = counting
        return counts

    def median_gate(self, backbone, images):
        """A gate that stops half of the images after the first stage."""
        entropy = EntropyGate(1e9).entropy(backbone.forward_stages(images)[0])
        return EntropyGate(float(entropy.median()) + 1e-6)

    @pytest.mark.parametrize("size", SIZES)
    @torch.no_grad()
    def test_maps_of_all_stages_have_one_shape(self, size):
        backbone = self.lively()
        images = torch.randn(2, 3, *size)
        shapes = {tuple(m.shape for m in out.features) for out in backbone.forward_stages(images)}
        assert len(shapes) == 1
        maps = backbone(images)
        assert isinstance(maps, tuple)
        assert {tuple(m.shape for m in maps)} == shapes
        assert all(torch.isfinite(m).all() for m in maps)

    @torch.no_grad()
    def test_fixed_exit_equals_that_stage_of_all(self):
        backbone = self.lively()
        images = torch.randn(3, 3, 64, 64)
        for stage, output in enumerate(backbone.forward_stages(images)):
            thought = backbone.think(images, FixedGate(stage))
            assert thought.exit_stage.tolist() == [stage] * 3
            close(thought.logits, output.logits)
            close(thought.features, output.features)
            assert torch.isfinite(thought.entropy[:, : stage + 1]).all()
            assert torch.isnan(thought.entropy[:, stage + 1 :]).all()

    @pytest.mark.parametrize("seed", range(2))
    @torch.no_grad()
    def test_batch_mates_change_nothing(self, seed):
        torch.manual_seed(seed)
        backbone = self.lively()
        images = torch.randn(7, 3, 48, 64)
        for gate in (self.median_gate(backbone, images), RandomGate(0.5, seed=seed)):
            together = backbone.think(images, gate)
            assert 0 < (together.exit_stage == 0).sum() < 7
            for i in range(7):
                alone = backbone.think(images[i : i + 1], gate)
                assert alone.exit_stage.item() == together.exit_stage[i].item()
                close(alone.logits[0], together.logits[i])
                close(alone.features[-1][0], together.features[-1][i])
                torch.testing.assert_close(
                    alone.entropy[0], together.entropy[i], atol=1e-5, rtol=1e-4, equal_nan=True
                )

    @torch.no_grad()
    def test_stopped_images_skip_later_stages(self):
        backbone = self.lively()
        images = torch.randn(6, 3, 64, 64)
        gate = self.median_gate(backbone, images)
        counts = self.count_images(backbone)
        exits = backbone.think(images, gate).exit_stage
        for stage in range(backbone.num_stages):
            assert counts[stage] == (exits >= stage).sum()
        counts.clear()
        backbone.think(images, FixedGate(0))
        assert counts == {0: 6}

    def test_thresholds_at_the_ends(self):
        images = torch.randn(3, 3, 64, 64)
        backbone = self.lively(gate=dict(type="EntropyGate", threshold=0))
        assert (backbone.think(images).exit_stage == backbone.num_stages - 1).all()
        backbone.set_gate(dict(type="EntropyGate", threshold=100.0))
        assert (backbone.think(images).exit_stage == 0).all()
        backbone.set_gate(None)
        assert (backbone.think(images).exit_stage == backbone.num_stages - 1).all()

    def test_gradients_reach_every_parameter(self):
        backbone = self.lively().train()
        loss = sum(
            out.logits.square().mean() + sum(m.square().mean() for m in out.features)
            for out in backbone.forward_stages(torch.randn(2, 3, 64, 64))
        )
        loss.backward()
        for name, parameter in backbone.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    def test_checkpointed_equals_plain(self):
        plain = self.lively().train()
        checkpointed = self.lively(with_cp=True).train()
        checkpointed.load_state_dict(plain.state_dict())
        images = torch.randn(2, 3, 64, 64)
        for backbone in (plain, checkpointed):
            sum(out.logits.square().sum() for out in backbone.forward_stages(images)).backward()
        for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
            close(a.grad, b.grad)

    def test_drop_in_training_samples_exits_by_loss_weight(self):
        weights = [1.0] + [3.0 / (self.num_stages - 1)] * (self.num_stages - 1)
        backbone = self.lively(loss_weights=weights).train()
        counts = self.count_images(backbone)
        maps = backbone(torch.randn(400, 3, 16, 16))
        assert counts[0] == 400
        assert 250 < counts[1] < 350  # 3 of 4 think on
        maps[-1].sum().backward()
        assert backbone.recycle[0].scale.grad.abs() > 0

    def test_drop_in_estimates_the_joint_loss(self):
        """The average over samples is the weighted sum over stages."""
        backbone = self.lively().train()
        image = torch.randn(1, 3, 16, 16)
        with torch.no_grad():
            outputs = backbone.forward_stages(image)
            joint = sum(
                weight * out.features[-1].square().mean()
                for weight, out in zip(backbone.loss_weights, outputs, strict=True)
            )
            sampled = backbone(image.expand(2000, -1, -1, -1))[-1].square().mean()
            spread = torch.stack([out.features[-1].square().mean() for out in outputs]).std()
        assert abs(sampled - joint) < 5 * spread / 2000**0.5 + 1e-6

    @torch.no_grad()
    def test_hidden_widths_that_are_no_whole_numbers(self):
        outputs = self.lively(mlp_ratio=2.6).forward_stages(torch.randn(2, 3, 64, 64))
        assert all(torch.isfinite(output.tokens).all() for output in outputs)

    def test_drop_path_is_random_in_training_only(self):
        backbone = self.build(drop_path_rate=0.5)
        images = torch.randn(4, 3, 64, 64)
        for training in (True, False):
            backbone.train(training)
            with torch.no_grad():
                a, b = (backbone.forward_stages(images)[-1].tokens for _ in range(2))
            assert torch.equal(a, b) != training

    @torch.no_grad()
    def test_embedding_is_computed_once(self):
        backbone, images = self.build(), torch.randn(1, 3, 50, 64)
        narrow = backbone.embed(images, 0)
        wide = backbone.embed(images, self.num_stages - 1, narrow)
        assert torch.equal(wide[..., : narrow.shape[-1]], narrow)
        close(wide, backbone.embed(images, self.num_stages - 1))

    def test_frozen_norms(self):
        backbone = self.build(norm_cfg=dict(type="LN", requires_grad=False)).train()
        for module in backbone.modules():
            trained = any(p.requires_grad for p in module.parameters(recurse=False))
            assert not (isinstance(module, NestedLayerNorm) and trained)
        assert any(p.requires_grad for p in backbone.parameters())

    @torch.no_grad()
    def test_deep_copy_and_state_dict(self):
        backbone = self.lively()
        images = torch.randn(2, 3, 64, 64)
        twin = copy.deepcopy(backbone)
        fresh = self.build()
        fresh.load_state_dict(backbone.state_dict())
        expected = backbone.think(images, FixedGate(-1)).logits
        close(twin.think(images, FixedGate(-1)).logits, expected)
        close(fresh.think(images, FixedGate(-1)).logits, expected)

    @torch.no_grad()
    def test_images_exit_at_every_stage(self):
        backbone = self.lively()
        exits = backbone.think(torch.randn(64, 3, 16, 16), RandomGate(0.4, seed=0)).exit_stage
        assert set(exits.tolist()) == set(range(backbone.num_stages))

    @torch.no_grad()
    def test_an_empty_batch(self):
        backbone = self.lively(gate=dict(type="EntropyGate", threshold=1))
        thought = backbone.think(torch.randn(0, 3, 64, 64))
        assert thought.exit_stage.shape == (0,)
        assert len(thought.features[-1]) == 0

    @torch.no_grad()
    def test_one_class_needs_sigmoid(self):
        with pytest.raises(ConfigError, match="EntropyGate use_sigmoid must be True"):
            self.build(num_classes=1, gate=dict(type="EntropyGate", threshold=0.1))
        gate = dict(type="EntropyGate", threshold=0.1, use_sigmoid=True)
        assert self.build(num_classes=1, gate=gate).gate.use_sigmoid

    @torch.no_grad()
    def test_bfloat16_autocast(self):
        backbone = self.lively(gate=dict(type="RandomGate", p=0.5, seed=0))
        images = torch.randn(8, 3, 64, 64)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            thought = backbone.think(images)
            outputs = backbone.forward_stages(images)
        assert len({m.dtype for output in outputs for m in output.features}) == 1
        assert len(set(thought.exit_stage.tolist())) > 1
        assert thought.entropy.dtype == torch.float32
        assert torch.isfinite(thought.features[-1]).all()

    def test_bad_gates(self):
        for gate, field in (
            (dict(type="EntropyGate", threshold=-0.1), "gate threshold"),
            (dict(type="EntropyGate", threshold=1, topk=1000), "gate topk"),
            (dict(type="PixelEntropyGate", threshold=1), "PixelEntropyGate"),
            (dict(type="FixedGate", stage=9), "FixedGate stage"),
            (dict(type="RandomGate", p=[0.5] * self.num_stages), "RandomGate p"),
            (dict(type="NoGate"), "gate must be"),
        ):
            with pytest.raises(ConfigError, match=field):
                self.build(gate=gate)

    def test_entropy_gate_needs_a_head(self):
        with pytest.raises(ConfigError, match="num_classes must be >= 1"):
            self.build(num_classes=0, gate=dict(type="EntropyGate", threshold=1.0))

    @torch.no_grad()
    def test_without_a_head(self):
        backbone = self.lively(num_classes=0)
        thought = backbone.think(torch.randn(2, 3, 64, 64))
        assert thought.logits is None
        assert torch.isnan(thought.entropy).all()
