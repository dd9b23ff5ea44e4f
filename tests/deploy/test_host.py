import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.builders import MASK, SLIDE, classifier, segmentor
from helpers.deployment import CFG, GATE, PRUNING, ModuleHost, noise
from mmengine.config import Config

from tvit_seg import FixedGate
from tvit_seg.deploy.graphs import StageGraph
from tvit_seg.deploy.host import new_size, prepare, resize, warn_of_saturation, windows
from tvit_seg.models.segmentors.windows import Windows

SIZE = (32, 48)


@torch.no_grad()
def stop_half(model, images):
    """Set the threshold of the model's gate so that half of the images stop."""
    gate = model.backbone.gate
    gate.threshold = 0.0
    gate.threshold = float(model.think(images).entropy[:, 0].median()) + 1e-6


def assert_thinks_alike(host, model, images):
    found = host.think(images.numpy())
    with torch.no_grad():
        thought = model.think(images)
    assert found["exit_stage"].tolist() == thought.exit_stage.tolist()
    np.testing.assert_allclose(found["entropy"], thought.entropy, atol=1e-5)
    for name in ("logits", "seg_logits"):
        if getattr(thought, name) is not None:
            np.testing.assert_allclose(found[name], getattr(thought, name), atol=1e-4)
    return found


@pytest.mark.parametrize(
    ("gate", "options", "any_size"),
    [
        (dict(type="EntropyGate"), {}, False),
        (dict(type="EntropyGate"), dict(head=MASK), True),
        (dict(type="PixelEntropyGate"), {}, True),
        (dict(type="PixelEntropyGate", resolution="token"), {}, True),
    ],
)
def test_thinks_as_the_segmentor(gate, options, any_size):
    model = segmentor(dict(gate, threshold=1.0), **options)
    images = torch.randn(7, 3, *SIZE)
    stop_half(model, images)
    host = ModuleHost(model, SIZE, any_size)
    found = assert_thinks_alike(host, model, images)
    stages = {(g.stage, n) for g, n in host.ran if isinstance(g, StageGraph)}
    going = int((found["exit_stage"] == 1).sum())
    assert 0 < going < 7
    assert stages == {(0, 7), (1, going)}
    if any_size:
        assert_thinks_alike(host, model, torch.randn(2, 3, 41, 18))  # padded with zeros


def test_thinks_as_the_classifier():
    model = classifier(GATE, backbone=dict(thinking_stages=(1, 2, 4)))
    images = torch.randn(9, 3, *SIZE)
    stop_half(model, images)
    host = ModuleHost(model, SIZE)
    assert "seg_logits" not in assert_thinks_alike(host, model, images)
    assert all(result.labels.shape == () for result in host(noise(2)))


@torch.no_grad()
def test_a_single_graph():
    model = segmentor(GATE, backbone=dict(pruning=PRUNING))
    images = torch.randn(3, 3, *SIZE)
    found = ModuleHost(model, SIZE, stage=0).think(images.numpy())
    wanted = model.think(images, FixedGate(0)).seg_logits
    np.testing.assert_allclose(found["seg_logits"], wanted, atol=1e-5)
    assert set(found["exit_stage"]) == {0}


@pytest.mark.parametrize("test_cfg", [dict(mode="whole"), SLIDE])
@torch.no_grad()
def test_predicts_label_maps_as_the_segmentor(test_cfg):
    """Preprocessing, windows over images of two sizes, averages."""
    pre = dict(type="SegDataPreProcessor", mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True)
    model = segmentor(GATE, test_cfg=test_cfg, data_preprocessor=pre)
    slides = test_cfg is SLIDE
    host = ModuleHost(model, (32, 32) if slides else SIZE, any_size=not slides)
    images = [*noise(1, (50, 70)), *noise(1, (32, 41))]
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
    image = noise(1)[0]
    with torch.no_grad():
        sample = model.predict(torch.from_numpy(image.transpose(2, 0, 1)[None]).float())[0]
    found = ModuleHost(model, SIZE)([image])[0].labels
    assert (found == sample.pred_sem_seg.data[0].numpy()).all()


def test_sizes_that_graphs_do_not_accept():
    with pytest.raises(ValueError, match=r"\(32, 32\) pixels, but the graphs are for \[32, 48\]"):
        ModuleHost(segmentor(GATE), SIZE).think(np.zeros((1, 3, 32, 32), np.float32))
    sliding = ModuleHost(segmentor(GATE, test_cfg=SLIDE), (32, 32))
    with pytest.raises(ValueError, match=r"\(20, 32\) pixels, but the graphs are for"):
        sliding(noise(1, (20, 40)))


def test_no_image():
    host, image = ModuleHost(segmentor(GATE), SIZE), noise(1)[0]
    for wrong, message in (
        (None, "None of NoneType"),
        (image[..., 0], r"\(32, 48\) of uint8"),
        (image / 255, r"\(32, 48, 3\) of float64"),
    ):
        with pytest.raises(ValueError, match=rf"\(H, W, 3\) of uint8, got {message}"):
            host([wrong])


@pytest.mark.parametrize(("size", "align_corners"), [((20, 31), False), ((9, 50), True)])
def test_resize_as_torch(size, align_corners):
    x = torch.randn(4, 13, 17)
    wanted = F.interpolate(x[None], size, mode="bilinear", align_corners=align_corners)[0]
    np.testing.assert_allclose(resize(x.numpy(), size, align_corners), wanted, atol=1e-5)


def test_resize_as_opencv():
    size = (60, 31)
    image = noise(1, (40, 50))[0]
    wanted = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
    found = np.rint(resize(image.astype(np.float32).transpose(2, 0, 1), size))
    assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize("keep_ratio", [False, True])
@pytest.mark.parametrize("size", [(360, 480), (99, 1234)])
def test_sizes_as_mmcv(size, keep_ratio):
    from mmseg.datasets.transforms import Resize

    step = Resize(scale=(200, 160), keep_ratio=keep_ratio)
    image = np.zeros((*size, 3), np.uint8)
    wanted = step(dict(img=image, img_shape=size, seg_fields=[]))["img"].shape[:2]
    assert new_size(size, dict(scale=[200, 160], keep_ratio=keep_ratio)) == wanted


def test_windows_as_the_segmentor():
    for size in ((100, 70), (32, 32), (33, 64)):
        slide = dict(crop_size=(32, 32), stride=(24, 20))
        assert windows(size, slide) == Windows(size, (32, 32), (24, 20)).areas


def test_channels_and_normalisation():
    image = noise(1, (2, 2))[0]
    how = dict(mean=[1.0, 2.0, 3.0], std=[2.0, 2.0, 4.0], channels="RGB", resize=None)
    mean, std = (np.array(how[name]) for name in ("mean", "std"))
    wanted = ((image[..., ::-1] - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(prepare(image, how), wanted, rtol=1e-6)


def test_resize_of_the_pipeline():
    """The image is resized as configured, the labels come back at its size."""
    dataset = dict(CFG.test_dataloader.dataset)
    dataset["pipeline"] = [dict(type="Resize", scale=(64, 40), keep_ratio=True)]
    cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
    host = ModuleHost(segmentor(GATE), SIZE, any_size=True, cfg=cfg)
    image = noise(1, (80, 100))[0]
    assert prepare(image, host.manifest["preprocessing"]).shape == (3, 40, 50)
    assert host([image])[0].labels.shape == (80, 100)


@pytest.mark.parametrize("size", [(32, 48), (75, 90), (20, 31)])
def test_labels_are_those_of_all_classes_at_once(size):
    host = ModuleHost(segmentor(GATE), SIZE)
    logits = np.random.default_rng(0).normal(size=(7, *SIZE)).round(1).astype(np.float32)
    whole = (..., slice(0, SIZE[0]), slice(0, SIZE[1]))
    labels = host.label(logits, [whole], size)
    assert (labels == resize(logits, size).argmax(0)).all()


@pytest.mark.parametrize(
    ("features", "warns"),
    [
        ("avx2 avx512f", True),
        ("avx2 avx512_vnni", False),
        ("avx2 avx_vnni", False),
        ("asimd", False),
    ],
)
def test_int8_without_vnni(tmp_path, recwarn, features, warns):
    (tmp_path / "cpuinfo").write_text(f"flags : fpu {features}\n")
    warn_of_saturation(tmp_path / "cpuinfo")
    warn_of_saturation(tmp_path / "absent")
    assert [("VNNI" in str(w.message), w.category) for w in recwarn] == [
        (True, UserWarning)
    ] * warns
