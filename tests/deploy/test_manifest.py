import pytest
from helpers.builders import segmentor
from helpers.deployment import GATE
from mmengine.config import Config

from tvit_seg import EntropyGate, FixedGate, PixelEntropyGate
from tvit_seg.deploy.manifest import describe, describe_gate, fix_size


def config(*steps):
    return Config(dict(test_dataloader=dict(dataset=dict(type="SceneDataset", pipeline=steps))))


def test_gates():
    assert describe_gate(EntropyGate(0.5, topk=3)) == dict(
        type="EntropyGate", threshold=0.5, topk=3, use_sigmoid=False, reads="image"
    )
    assert describe_gate(PixelEntropyGate(1)) == dict(
        type="PixelEntropyGate", threshold=1.0, reads="pixels"
    )
    assert describe_gate(FixedGate(-1)) == dict(type="FixedGate", stage=-1, reads="image")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (dict(type="Resize", scale=(64, 40), interpolation="nearest"), "interpolation='nearest'"),
        (dict(type="LoadImageFromFile", color_type="grayscale"), "with color_type='grayscale'"),
        (dict(type="Pad", size=(64, 64)), "Pad is not part of"),
    ],
)
def test_steps_that_the_host_does_not_implement(step, message):
    with pytest.warns(UserWarning, match=message):
        describe(segmentor(GATE), config(step))


def test_one_size_replaces_the_scale():
    manifest = describe(segmentor(GATE), config(dict(type="Resize", scale=64, keep_ratio=True)))
    resize = manifest["preprocessing"]["resize"]
    assert resize == dict(scale=[64, 64], keep_ratio=True)
    with pytest.warns(UserWarning, match="stretches images of another ratio"):
        fix_size(manifest, (32, 48))
    assert manifest["size"] == [32, 48]
    assert manifest["preprocessing"]["resize"] == dict(scale=[48, 32], keep_ratio=False)
