"""The frozen, unpruned copy that a pruned backbone is distilled from."""

import copy

import pytest
import torch
from helpers.contracts import close
from test_loss import SMALL, build
from torch import nn

from tvit_seg import ThinkingViT
from tvit_seg.errors import CheckpointError
from tvit_seg.models.pruning.teacher import Teacher

IMAGES = torch.randn(2, 3, 32, 32)


class Model(nn.Module):
    """A backbone beside its teacher, as in a segmentor or classifier."""

    def __init__(self, teacher=None):
        super().__init__()
        self.backbone = build()
        self.teacher = Teacher(teacher)

    def step(self):
        """Runs the teacher, then changes the weights."""
        target = self.teacher(self.backbone, IMAGES)[1].logits
        with torch.no_grad():
            for parameter in self.backbone.parameters():
                parameter.mul_(1.1)
        return target


def test_it_is_unpruned_frozen_and_does_not_move():
    model = Model().train()
    plain = copy.deepcopy(model.backbone).eval()
    plain.pruning.keep_ratio = 1.0
    expected = plain.forward_stages(IMAGES)[1].logits
    parameters = len(list(model.parameters()))
    for _ in range(2):
        target = model.step()
        assert not target.requires_grad
        close(target, expected)
    assert len(list(model.parameters())) == parameters
    assert model.backbone.pruning is not None
    assert model.backbone.training


@pytest.mark.parametrize("steps", [0, 1])
def test_a_resumed_training_has_the_same_teacher(steps):
    model = Model()
    assert not model.teacher.weights
    first = model.step()
    assert not [name for name in model.state_dict() if name.startswith("teacher")]
    resumed = Model()
    for _ in range(steps):
        resumed.step()  # its copy by then does not count
    resumed.load_state_dict(model.state_dict())
    resumed.teacher.weights = model.teacher.weights
    again = Model()
    again.load_state_dict(resumed.state_dict())
    again.teacher.weights = resumed.teacher.weights  # saved before it ran
    for other in (resumed, again):
        close(other.step(), first)


def test_a_copied_model_has_its_own_teacher():
    model = Model()
    first = model.step()
    twin = copy.deepcopy(model)
    close(twin.step(), first)


def test_a_given_checkpoint(tmp_path):
    source, path = build(), tmp_path / "teacher.pth"
    plain = copy.deepcopy(source).eval()
    plain.pruning = None
    torch.save(dict(state_dict=plain.state_dict()), path)
    model = Model(dict(type="Pretrained", checkpoint=str(path)))
    close(model.step(), plain.forward_stages(IMAGES)[1].logits)
    assert not model.teacher.weights


def test_a_checkpoint_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Model(dict(type="Pretrained", checkpoint=str(tmp_path / "no.pth"))).step()


def test_a_checkpoint_of_another_size(tmp_path):
    path = tmp_path / "teacher.pth"
    torch.save(dict(state_dict=ThinkingViT(**{**SMALL, "num_layers": 3}).state_dict()), path)
    with pytest.raises(CheckpointError, match="another network: blocks"):
        Model(dict(type="Pretrained", checkpoint=str(path))).step()
