"""tools/test.py on images of a test server: predictions are saved, nothing asks for labels."""

import cv2
import numpy as np
import pytest
from helpers.tools import ROOT, load_tool
from mmengine.config import Config

from tvit_seg.datasets.check import loads_labels
from tvit_seg.datasets.scenes import write_scenes
from tvit_seg.errors import ConfigError

LOAD, LABEL, PACK = (
    dict(type=name) for name in ("LoadImageFromFile", "mmseg.LoadAnnotations", "PackSegInputs")
)


@pytest.fixture
def tool():
    return load_tool("tools/test.py")


@pytest.fixture
def cfg(tmp_path):
    dataset = dict(
        type="BaseSegDataset",
        data_root=str(tmp_path),
        data_prefix=dict(img_path="images"),
        metainfo=dict(classes=("a", "b")),
        pipeline=[LOAD, LABEL, PACK],
    )
    evaluators = [dict(type="IoUMetric", output_dir="out"), dict(type="ThinkingMetric")]
    return Config(dict(test_dataloader=dict(dataset=dataset), test_evaluator=evaluators))


def test_metrics_and_pipeline(tool, cfg):
    assert not loads_labels(cfg)
    tool.do_without_labels(cfg)
    assert cfg.test_evaluator[0].format_only
    assert cfg.test_dataloader.dataset.pipeline == [LOAD, PACK]


def test_nowhere_to_save(tool, cfg):
    del cfg.test_evaluator[0]["output_dir"]
    with pytest.raises(ConfigError, match="--out"):
        tool.do_without_labels(cfg)


def test_steps_of_test_time_augmentation(tool):
    views = [[dict(type="RandomFlip", prob=1.0)], [LABEL], [PACK]]
    steps = Config(dict(x=[LOAD, dict(type="TestTimeAug", transforms=views)])).x
    left = [LOAD, dict(type="TestTimeAug", transforms=[views[0], views[2]])]
    assert tool.without_labels(steps) == left


@pytest.mark.parametrize("part", ["folder", "step", "both"])
def test_labels_need_a_folder_and_a_loader(cfg, part):
    if part != "step":
        cfg.test_dataloader.dataset.data_prefix.seg_map_path = "labels"
    if part == "folder":
        cfg.test_dataloader.dataset.pipeline = [LOAD, PACK]
    assert loads_labels(cfg) == (part == "both")


@pytest.mark.integration
def test_label_maps_are_saved(tool, tmp_path, monkeypatch, capsys):
    write_scenes(tmp_path / "scenes", 2, 2, (96, 96), 0)
    prefix, out = "test_dataloader.dataset", tmp_path / "out"
    monkeypatch.setattr("sys.argv", [
        "test.py", str(ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py"),
        str(ROOT / "checkpoints/quickstart.pth"), "--work-dir", str(tmp_path / "work"),
        "--out", str(out), "--cfg-options", f"{prefix}.data_root={tmp_path / 'scenes'}",
        f"{prefix}.data_prefix._delete_=True", f"{prefix}.data_prefix.img_path=img_dir/val",
        "test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False",
    ])  # fmt: skip
    tool.main()
    assert len(list(out.glob("*.png"))) == 2
    assert np.unique(cv2.imread(str(next(out.glob("*.png"))), -1)).max() < 7
    assert "stage0.share" in capsys.readouterr().out
