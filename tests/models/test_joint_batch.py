"""Several processes compute the losses and gradients of one with the joint batch."""

import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from helpers.builders import LINEAR, MASK, class_samples, classifier, samples, segmentor
from helpers.processes import run_together
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope

from tvit_seg import ThinkingEncoderDecoder
from tvit_seg.models.joint_batch import average_logs, joint_share

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")

IMAGES, CLASSES = 6, 5
PRUNING = dict(pruning=dict(type="DynamicPruning", locations=(0, 1), keep_ratio=0.6))
PRESENCE = dict(image_loss=dict(target="presence"))
ALL_PIXELS = dict(type="CrossEntropyLoss", class_weight=[0.5, 1, 2, 1, 3])
SWIN = dict(
    type="ThinkingSwin",
    embed_dims=16,
    depths=(1, 1, 1),
    num_heads=(1, 2, 4),
    thinking_stages=((1, 1, 2), (1, 2, 4)),
    window_size=3,
    drop_path_rate=0.0,
    num_classes=CLASSES,
)
NORM = dict(type="GN", num_groups=4)
UPER = dict(
    type="UPerHead",
    in_channels=[16, 32, 64],
    in_index=[0, 1, 2],
    pool_scales=(1, 2),
    channels=16,
    num_classes=CLASSES,
    dropout_ratio=0,
    norm_cfg=NORM,
    loss_decode=LINEAR["loss_decode"],
)
AUXILIARY = {**LINEAR, "in_channels": 32, "in_index": 1, "channels": 8, "num_convs": 1}


def swin(**kwargs):
    auxiliary = {**AUXILIARY, "norm_cfg": NORM}
    return ThinkingEncoderDecoder(SWIN, UPER, auxiliary_head=auxiliary, **kwargs)


CASES = {
    "linear head": lambda: segmentor(**PRESENCE),
    "three stages": lambda: segmentor(backbone=dict(thinking_stages=(1, 2, 4)), **PRESENCE),
    "mask head, histogram": lambda: segmentor(head=MASK, image_loss=dict(target="histogram")),
    "class weights": lambda: segmentor(head={**LINEAR, "loss_decode": ALL_PIXELS}),
    "Swin, UPerNet, auxiliary head": lambda: swin(**PRESENCE),
    "pruned segmentor": lambda: segmentor(backbone=PRUNING, **PRESENCE),
    "classifier": lambda: classifier(label_smoothing=0.1),
    "pruned classifier": lambda: classifier(backbone=PRUNING),
    "sandwich": lambda: classifier(backbone=dict(thinking_stages=(1, 2, 3, 4)), sandwich=True),
}


def certain(scores):
    """Keeps the highest scores, without noise, with the gradient of the scores."""
    kept = scores.softmax(-1)[..., :1]
    return (kept > 0.5).float() + kept - kept.detach()


def batch(name, rank, processes):
    """This process's part of a batch whose labelled pixels lie unevenly."""
    torch.manual_seed(1)
    images = torch.randn(IMAGES, 3, 32, 32)
    mine = slice(rank * IMAGES // processes, (rank + 1) * IMAGES // processes)
    if "classifier" in name or name == "sandwich":
        return images[mine], class_samples(torch.randint(0, CLASSES, (IMAGES,)).tolist())[mine]
    labels = torch.randint(0, CLASSES, (IMAGES, 32, 32))
    for i, label in enumerate(labels):
        label[: 8 * i] = 255  # the last two images have no labelled pixel
    return images[mine], samples(labels)[mine]


def train(name, rank=0, processes=1):
    """Logs of two steps, and gradients of the second, which depend on the first."""
    torch.manual_seed(2)  # with others, rounding may decide whether a token is kept
    model = step = CASES[name]().train()
    if processes > 1:
        unused = name == "sandwich"
        step = MMDistributedDataParallel(
            model, device_ids=None, broadcast_buffers=False, find_unused_parameters=unused
        )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, data_samples = batch(name, rank, processes)
    logged = []
    with mock.patch("tvit_seg.models.pruning.tokens.hard_decision", certain):
        for _ in range(2):
            if logged:
                optimizer.step()
                optimizer.zero_grad()
            # each process chooses differently, the first one's choice counts
            with mock.patch("random.choice", lambda among: among[rank % len(among)]):
                loss, log_vars = model.parse_losses(step(inputs, data_samples, mode="loss"))
            loss.backward()
            logged.append({key: value.item() for key, value in log_vars.items()})
    grads = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    return logged, grads


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    run_together(2, __file__, folder / "found.pth", cwd=folder)
    return torch.load(folder / "found.pth", weights_only=True)


@pytest.mark.integration
@pytest.mark.parametrize("name", CASES)
def test_as_one_process(name, together):
    logged, grads = train(name)
    theirs, their_grads = together[name]
    assert grads.keys() == their_grads.keys()
    for step, their_step in zip(logged, theirs, strict=True):
        losses = {key: value for key, value in step.items() if "acc" not in key}
        assert losses == pytest.approx({key: their_step[key] for key in losses}, abs=1e-5)
    for key, grad in grads.items():
        torch.testing.assert_close(
            their_grads[key], grad, atol=1e-5, rtol=0, msg=lambda text, key=key: f"{key}: {text}"
        )
    assert max(grad.abs().max() for grad in grads.values()) > 1e-3


def test_one_process_changes_nothing():
    assert joint_share(torch.tensor(7)) == 1
    logs = {"loss": torch.ones(())}
    assert average_logs(logs) is logs


if __name__ == "__main__":
    dist.init_process_group("gloo")
    init_default_scope("mmseg")
    found = {name: train(name, dist.get_rank(), dist.get_world_size()) for name in CASES}
    if dist.get_rank() == 0:
        torch.save(found, Path(sys.argv[1]))
    dist.destroy_process_group()
