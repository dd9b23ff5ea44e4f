"""Pictures of images that only the loader of their pipeline can read."""

import cv2
import pytest
from helpers.bands import SIZE, write
from helpers.tools import load_tool

from tvit_seg.engine import ThinkingRunner
from tvit_seg.engine.hooks.pictures import PictureHook

PICTURE = (7 * SIZE[0] + 22 + 28, 3 * 7 * SIZE[1], 3)  # image, label, prediction, enlarged


@pytest.mark.parametrize("where", ["default_hooks", "custom_hooks"])
def test_the_hook_of_mmseg_is_replaced(tmp_path, where):
    hook = dict(type="SegVisualizationHook", draw=True, interval=2)
    hooks = dict(visualization=hook) if where == "default_hooks" else [hook]
    cfg = write(tmp_path / "data")
    cfg.visualizer.vis_backends = [dict(type="LocalVisBackend")]
    cfg.visualizer.name = name = f"pictures_{where}"
    cfg.merge_from_dict({"work_dir": str(tmp_path), "experiment_name": name, where: hooks})
    runner = ThinkingRunner.from_cfg(cfg)
    assert [hook.interval for hook in runner.hooks if type(hook) is PictureHook] == [2]
    runner.val()
    pictures = sorted(tmp_path.rglob("vis_image/*.png"))
    assert [path.name for path in pictures] == ["val_0.npy_0.png", "val_2.npy_2.png"]
    assert cv2.imread(str(pictures[0])).shape == PICTURE


@pytest.mark.integration
@pytest.mark.parametrize("options", [[], ["--tta"]], ids=["plain", "tta"])
def test_show_dir(tmp_path, monkeypatch, options):
    cfg = write(tmp_path / "data")
    cfg.tta_model = dict(type="ThinkingTTAModel")
    load, label, pack = cfg.test_dataloader.dataset.pipeline
    views = [[dict(type="RandomFlip", prob=p) for p in (0.0, 1.0)], [label], [pack]]
    cfg.tta_pipeline = [load, dict(type="TestTimeAug", transforms=views)]
    cfg.dump(tmp_path / "bands.py")
    monkeypatch.setattr("sys.argv", [
        "test.py", str(tmp_path / "bands.py"), str(tmp_path / "data/model.pth"), *options,
        "--work-dir", str(tmp_path / "work"), "--show-dir", str(tmp_path / "shown"),
    ])  # fmt: skip
    load_tool("tools/test.py").main()
    pictures = sorted((tmp_path / "shown").rglob("*.png"))
    assert len(pictures) == 3
    assert cv2.imread(str(pictures[0])).shape == PICTURE


@pytest.mark.integration
def test_demo(tmp_path):
    write(tmp_path / "data").dump(tmp_path / "bands.py")
    arguments = ["data/images", "bands.py", "data/model.pth"]
    out = tmp_path / "out"
    load_tool("tools/demo.py").main(
        [*(str(tmp_path / x) for x in arguments), "--out-dir", str(out)]
    )
    assert sorted(path.name for path in out.iterdir()) == ["0.npy.png", "1.npy.png", "2.npy.png"]
