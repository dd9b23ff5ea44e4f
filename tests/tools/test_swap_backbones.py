"""mmsegmentation's own configs, with another backbone."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.builders import samples
from helpers.tools import load_tool
from mmseg.registry import MODELS

swapping = load_tool("tools/dev/swap_backbones.py")
CONFIGS = swapping.mmseg_files() / "configs"
# settings of heads that follow from the backbone; everything else of a head is unchanged
CHANNELS = ("in_channels", "c1_in_channels")


def runnable(name):
    missing = swapping.missing_imports(CONFIGS / name)
    reason = f"the config needs {missing}, which mmsegmentation does not require"
    return pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=reason))


NAMES = [runnable(name) for name in swapping.SWAPS]


@pytest.mark.integration  # 15 models of their real sizes
@pytest.mark.parametrize("name", NAMES)
def test_swapped_config(name):
    """Builds, learns, predicts; and nothing but backbone and channels has changed."""
    cfg, diff = swapping.swap(CONFIGS / name)
    assert "custom_imports" not in cfg
    outside = [key for key in swapping.SWAPS[name] if not key.startswith("backbone")]
    assert all(key == "pretrained" or key.split(".")[-1] in CHANNELS for key in outside)
    assert any("tvit_seg.Thinking" in line for line in diff if line[0] == "+")

    swapping.shrink(cfg, Path("scenes"), size=64)
    model = MODELS.build(cfg.model)
    classes = len(swapping.CLASSES)
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, classes, (2, 64, 64)))
    images = torch.randn(2, 3, 64, 64)
    model.train()
    loss, _ = model.parse_losses(model.loss(images, samples(labels)))
    loss.backward()
    assert torch.isfinite(loss)
    assert model.backbone.patch_embed.proj.weight.grad.abs().sum() > 0
    model.eval()
    with torch.no_grad():
        result = model.predict(images, samples(labels))
    assert [r.seg_logits.data.shape for r in result] == [(classes, 64, 64)] * 2


def test_lines_are_counted():
    assert swapping.count_lines([" a", "-b", "+c", "+d"]) == "+2 -1"


def test_the_page_shows_three_of_these_diffs():
    blocks = re.findall(r"```diff\n(.*?)```", swapping.PAGE.read_text(), re.DOTALL)
    names = [
        "vit/vit_deit-s16_mln_upernet_8xb2-160k_ade20k-512x512.py",
        "fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py",
        "dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py",
    ]
    assert [b.strip() for b in blocks] == [
        "\n".join(swapping.swap(CONFIGS / name)[1]).strip() for name in names
    ]


def test_the_page_has_the_table_of_this_stack(tmp_path):
    page = tmp_path / "page.md"
    name = swapping.mm_distribution()
    page.write_text(f"a\n<!-- {name}: begin -->\nold\n<!-- {name}: end -->\nb\n")
    row = swapping.Row("c.py", "ThinkingViT", "+1 -1", "yes", "yes", "no")
    swapping.write(swapping.table([row]), page)
    text = page.read_text()
    assert text.startswith("a\n")
    assert text.endswith("b\n")
    assert "| c.py | ThinkingViT | +1 -1 | yes | yes | no |" in text
    assert "old" not in text
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="has no lines"):
        swapping.write("x", page)


@pytest.mark.slow
def test_mmsegs_own_tools(tmp_path):
    """Trains, tests and resumes with tools/train.py and tools/test.py of mmsegmentation."""
    name = "segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512.py"
    row = swapping.run(name, tmp_path)
    assert (row.trains, row.tests, row.resumes) == ("yes", "yes", "yes")
    log = (tmp_path / Path(name).stem / "train-resume.txt").read_text()
    assert re.findall(r"Iter\(train\) \[(\d)/4\]", log) == ["3", "4"]
