import subprocess
import sys
from math import inf
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.builders import MASK, SLIDE, classifier, segmentor
from helpers.deployment import CFG, ModuleHost, pictures
from mmengine.config import Config

from tvit_seg import FixedGate
from tvit_seg.deploy import host as host_file
from tvit_seg.deploy.graphs import StageGraph
from tvit_seg.deploy.host import new_size, prepare, resize, windows
from tvit_seg.deploy.manifest import describe
from tvit_seg.models.segmentors.windows import Windows

SIZE = (32, 48)
GATE = dict(type="EntropyGate", threshold=1.0)


def halved(model, images):
    """Sets the model's gate, and returns the threshold, so that half of the images stop."""
    with torch.no_grad():
        entropy = model.think(images, FixedGate(0)).entropy
    if model.backbone.gate.needs_decode_head:
        output = model.backbone.forward_stages(images)[0]
        output.decode = model.decoder(images)
        entropy = model.backbone.gate.entropy(output)[:, None].detach()
    model.backbone.gate.threshold = float(entropy[:, 0].nanmedian()) + 1e-6
    return model.backbone.gate.threshold


def assert_thinks_alike(host, model, images):
    found = host.think(images.numpy())
    with torch.no_grad():
        thought = model.think(images)
    assert found["exit_stage"].tolist() == thought.exit_stage.tolist()
    np.testing.assert_allclose(found["entropy"], thought.entropy, atol=1e-5)
    for name in ("logits", "seg_logits"):
        if getattr(thought, name, None) is not None:
            np.testing.assert_allclose(found[name], getattr(thought, name), atol=1e-4)
    return found


@pytest.mark.parametrize("head", [None, MASK])
@pytest.mark.parametrize("gate", ["EntropyGate", "PixelEntropyGate"])
@pytest.mark.parametrize("any_size", [False, True])
def test_thinks_as_the_segmentor(head, gate, any_size):
    model = segmentor(dict(type=gate, threshold=1.0), **({"head": head} if head else {}))
    images = torch.randn(7, 3, *SIZE)
    halved(model, images)
    host = ModuleHost(model, SIZE, any_size)
    found = assert_thinks_alike(host, model, images)
    assert set(found["exit_stage"]) == {0, 1}
    stages = {(g.stage, n) for g, n in host.ran if isinstance(g, StageGraph)}
    assert stages == {(0, 7), (1, int((found["exit_stage"] == 1).sum()))}  # who stops is done
    if any_size:
        assert_thinks_alike(host, model, torch.randn(2, 3, 41, 18))  # completed with zeros


def test_batch_mates_change_nothing():
    model = segmentor(GATE)
    images = torch.randn(6, 3, *SIZE)
    halved(model, images)
    host = ModuleHost(model, SIZE)
    together = host.think(images.numpy())
    for i, image in enumerate(images):
        alone = host.think(image[None].numpy())
        assert alone["exit_stage"][0] == together["exit_stage"][i]
        np.testing.assert_allclose(alone["seg_logits"][0], together["seg_logits"][i], atol=1e-5)


def test_classifier_and_three_stages():
    model = classifier(GATE, backbone=dict(thinking_stages=(1, 2, 4)))
    images = torch.randn(9, 3, *SIZE)
    halved(model, images)
    host = ModuleHost(model, SIZE)
    found = assert_thinks_alike(host, model, images)
    assert "seg_logits" not in found
    labels = [result.labels for result in host(pictures(2))]
    assert all(label.shape == () for label in labels)


def test_threshold_may_change():
    model = segmentor(GATE)
    host = ModuleHost(model, SIZE)
    images = np.random.default_rng(0).standard_normal((3, 3, *SIZE)).astype(np.float32)
    for threshold, stage in ((inf, 0), (0.0, 1)):
        host.threshold = threshold
        assert set(host.think(images)["exit_stage"]) == {stage}


@pytest.mark.parametrize("stage", [0, 1])
def test_a_single_graph(stage):
    model = segmentor(GATE)
    host = ModuleHost(model, SIZE, stage=stage)
    images = torch.randn(3, 3, *SIZE)
    with torch.no_grad():
        thought = model.think(images, FixedGate(stage))
    found = host.think(images.numpy())
    np.testing.assert_allclose(found["seg_logits"], thought.seg_logits, atol=1e-5)
    assert set(found["exit_stage"]) == {stage}


@pytest.mark.parametrize("test_cfg", [dict(mode="whole"), SLIDE])
@torch.no_grad()
def test_pictures_as_the_segmentor_sees_them(test_cfg):
    """Preprocessing, windows over two images of two sizes, averages: the same label maps."""
    pre = dict(type="SegDataPreProcessor", mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True)
    model = segmentor(GATE, test_cfg=test_cfg, data_preprocessor=pre)
    slides = test_cfg is SLIDE
    host = ModuleHost(model, (32, 32) if slides else SIZE, any_size=not slides)
    images = [*pictures(1, (50, 70)), *pictures(1, (32, 41))]
    for batch_size in (None, 3):
        for image, result in zip(images, host(images, batch_size), strict=True):
            inputs = [torch.from_numpy(image.transpose(2, 0, 1))]
            sample = model.test_step(dict(inputs=inputs))[0]
            assert (result.labels == sample.pred_sem_seg.data[0].numpy()).mean() > 0.999
            assert result.exit_stage.tolist() == np.atleast_1d(sample.exit_stage).tolist()
            assert result.entropy.shape == (len(result.exit_stage), 2)
    assert host([]) == []


def test_one_class_is_a_mask():
    head = dict(
        type="FCNHead", num_convs=0, concat_input=False, in_channels=32, channels=32,
        num_classes=2, out_channels=1, threshold=0.3, dropout_ratio=0,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=True),
    )  # fmt: skip
    model = segmentor(None, head=head)
    host = ModuleHost(model, SIZE)
    image = pictures(1)[0]
    with torch.no_grad():
        sample = model.predict(torch.from_numpy(image.transpose(2, 0, 1)[None]).float())[0]
    assert (host([image])[0].labels == sample.pred_sem_seg.data[0].numpy()).all()


def test_an_image_of_another_size():
    host = ModuleHost(segmentor(GATE), SIZE)
    with pytest.raises(ValueError, match=r"\(32, 32\) pixels, but the graphs are for \[32, 48\]"):
        host.think(np.zeros((1, 3, 32, 32), np.float32))


def test_what_is_no_picture():
    host = ModuleHost(segmentor(GATE), SIZE)
    picture = pictures(1)[0]
    for wrong, said in (
        (None, "None of NoneType"),
        (picture[..., 0], r"\(32, 48\) of uint8"),
        (picture[:0], r"\(0, 48, 3\) of uint8"),
        (picture / 255, r"\(32, 48, 3\) of float64"),
        (picture.tolist(), r"\(32, 48, 3\) of list"),
        (5.0, "5.0 of float"),
    ):
        with pytest.raises(ValueError, match=rf"must be an array \(H, W, 3\) of uint8, not {said}"):
            host([wrong])
    with pytest.raises(ValueError, match="must be an array"):
        host(picture)  # no list
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        host([picture], batch_size=0)


def test_windows_smaller_than_the_graph():
    host = ModuleHost(segmentor(GATE, test_cfg=SLIDE), (32, 32))
    with pytest.raises(ValueError, match=r"\(20, 32\) pixels, but the graphs are for"):
        host(pictures(1, (20, 40)))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(20, 31), (9, 50), (13, 17)])
def test_resize_as_torch(size, align_corners):
    x = torch.randn(4, 13, 17)
    wanted = F.interpolate(x[None], size, mode="bilinear", align_corners=align_corners)[0]
    np.testing.assert_allclose(resize(x.numpy(), size, align_corners), wanted, atol=1e-5)


@pytest.mark.parametrize("size", [(60, 90), (23, 31)])
def test_resize_as_opencv(size):
    image = pictures(1, (40, 50))[0]
    wanted = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
    found = np.rint(resize(image.astype(np.float32).transpose(2, 0, 1), size))
    assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize("keep_ratio", [False, True])
@pytest.mark.parametrize("size", [(360, 480), (300, 100), (99, 1234)])
def test_sizes_as_mmcv(size, keep_ratio):
    from mmseg.datasets.transforms import Resize

    step = Resize(scale=(200, 160), keep_ratio=keep_ratio)
    image = np.zeros((*size, 3), np.uint8)
    wanted = step(dict(img=image, img_shape=size, seg_fields=[]))["img"].shape[:2]
    assert new_size(size, dict(scale=[200, 160], keep_ratio=keep_ratio)) == wanted


def test_windows_as_the_segmentors():
    for size in ((100, 70), (32, 32), (33, 64)):
        slide = dict(crop_size=(32, 32), stride=(24, 20))
        assert windows(size, slide) == Windows(size, (32, 32), (24, 20)).areas


def test_channels_and_normalisation():
    image = pictures(1, (2, 2))[0]
    how = dict(mean=[1.0, 2.0, 3.0], std=[2.0, 2.0, 4.0], channels="RGB", resize=None)
    wanted = (image[..., ::-1].transpose(2, 0, 1) - np.array([[[1]], [[2]], [[3]]])) / np.array(
        [[[2]], [[2]], [[4]]]
    )
    np.testing.assert_allclose(prepare(image, how), wanted, rtol=1e-6)


def test_resize_of_the_pipeline():
    """The picture is resized as configured, the labels come back at its size."""
    pipeline = [dict(type="Resize", scale=(64, 40), keep_ratio=True)]
    cfg = Config(dict(test_dataloader=dict(dataset={**CFG.test_dataloader.dataset})))
    cfg.test_dataloader.dataset.pipeline = pipeline
    model = segmentor(GATE)
    host = ModuleHost(model, SIZE, any_size=True, cfg=cfg)
    image = pictures(1, (80, 100))[0]
    assert prepare(image, host.manifest["preprocessing"]).shape == (3, 40, 50)
    assert host([image])[0].labels.shape == (80, 100)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            dict(type="Resize", scale=(64, 40), interpolation="nearest"),
            "interpolation='nearest'",
        ),
        (dict(type="LoadImageFromFile", color_type="grayscale"), "with color_type='grayscale'"),
        (dict(type="Pad", size=(64, 64)), "Pad is not part of"),
        (dict(type="Resize", scale=(64, 40), keep_ratio=True), "stretches images of another ratio"),
    ],
)
def test_steps_that_the_host_does_not_know(step, said):
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type="SceneDataset", pipeline=[step]))))
    with pytest.warns(UserWarning, match=said):
        describe(segmentor(GATE), cfg, SIZE)


def test_a_scale_of_one_number():
    steps = [dict(type="Resize", scale=64, keep_ratio=True)]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type="SceneDataset", pipeline=steps))))
    found = describe(segmentor(GATE), cfg, None)["preprocessing"]["resize"]
    assert found == dict(scale=[64, 64], keep_ratio=True)


def test_the_file_stands_alone(tmp_path):
    """A copy of it runs where there is neither torch nor this package."""
    copy = tmp_path / "service.py"
    copy.write_text(Path(host_file.__file__).read_text())
    code = "import sys; sys.modules.update(torch=None, tvit_seg=None, cv2=None); import service"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
