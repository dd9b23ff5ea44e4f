"""What mmsegmentation and mmengine do with a model, done with swapped backbones."""

from pathlib import Path

import pytest
import torch
from helpers.tools import load_tool
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer, inference_model, init_model
from mmseg.registry import DATASETS, MODELS

from tvit_seg.datasets.scenes import PALETTE, write_scenes

swap_backbones = load_tool("tools/dev/swap_backbones.py")
CONFIGS = swap_backbones.mmseg_files() / "configs"
NAMES = {
    "ThinkingViT": "segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512.py",
    "ThinkingSwin": "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
}
CLASSES = swap_backbones.CLASSES


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, 2, 1, (64, 64), seed=0)
    return root


@pytest.fixture
def image(scenes):
    return str(next((scenes / "img_dir/val").iterdir()))


@pytest.fixture(params=NAMES)
def cfg(request, scenes, tmp_path):
    """mmseg's config with another backbone, which writes below a temporary folder."""
    found, _ = swap_backbones.swap(CONFIGS / NAMES[request.param])
    swap_backbones.shrink(found, scenes, size=64)
    found.work_dir = str(tmp_path)
    # mmengine keeps what has a name
    found.experiment_name = found.visualizer.name = f"{request.param}-{tmp_path.name}"
    return found


@pytest.fixture
def checkpoint(cfg, tmp_path):
    """Random weights, as mmseg saves them."""
    path = tmp_path / "weights.pth"
    meta = dict(dataset_meta=dict(classes=CLASSES, palette=PALETTE))
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict(), meta=meta), path)
    return str(path)


@pytest.mark.integration
def test_training_with_ema_amp_and_images(cfg, tmp_path):
    cfg.custom_hooks = [dict(type="EMAHook", momentum=0.5)]
    cfg.optim_wrapper.type = "tvit_seg.AutocastOptimWrapper"
    cfg.param_scheduler = []  # warming up, two steps would change next to nothing
    cfg.default_hooks.visualization = dict(type="SegVisualizationHook", draw=True, interval=1)
    runner = Runner.from_cfg(cfg)
    kinds = set()
    runner.model.decode_head.conv_seg.register_forward_hook(
        lambda module, _, out: kinds.add(out.dtype) if module.training else None
    )
    runner.train()
    assert kinds == {torch.bfloat16}
    saved = torch.load(tmp_path / "iter_2.pth", weights_only=False)  # written just now
    raw, averaged = saved["ema_state_dict"], saved["state_dict"]
    name = "backbone.patch_embed.proj.weight"
    assert not torch.equal(raw[f"module.{name}"], averaged[name])
    assert list(tmp_path.rglob("vis_image/*.png"))


def test_init_model_and_inference_model(cfg, checkpoint, image):
    model = init_model(cfg, checkpoint, device="cpu")
    assert model.dataset_meta["classes"] == CLASSES
    for threshold in (0, 100.0):  # all think, all stop
        model.backbone.set_gate(dict(type="EntropyGate", threshold=threshold))
        first, second = inference_model(model, [image, image])
        assert first.pred_sem_seg.data.shape == (1, 64, 64)
        assert torch.equal(first.pred_sem_seg.data, second.pred_sem_seg.data)


def test_inferencer(cfg, checkpoint, image, tmp_path):
    path = tmp_path / "swapped.py"
    cfg.dump(path)
    inferencer = MMSegInferencer(str(path), checkpoint, device="cpu", scope="mmseg")
    found = inferencer(image, return_vis=True, out_dir=str(tmp_path / "out"))
    assert found["predictions"].shape == (64, 64)
    assert found["visualization"].shape == (64, 64, 3)
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2  # image and label map


@pytest.mark.integration
def test_test_time_augmentation(cfg):
    tta = MODELS.build(dict(cfg.tta_model, module=cfg.model)).eval()
    views = DATASETS.build(dict(cfg.val_dataloader.dataset, pipeline=cfg.tta_pipeline))[0]
    assert len(views["inputs"]) > 1
    (merged,) = tta.test_step(pseudo_collate([views]))
    assert merged.pred_sem_seg.data.shape == (1, 64, 64)


@pytest.mark.gpu
def test_mixed_precision_on_a_gpu(cfg):
    cfg.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert next(runner.model.parameters()).is_cuda
    assert Path(cfg.work_dir, "iter_2.pth").is_file()
