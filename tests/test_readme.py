"""The README is true: its Python runs, and what it names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "checkpoints/README.md"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_python_from_the_readme():
    runnable = [block for block in blocks("python") if "import" in block]
    assert runnable
    for block in runnable:
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page):
    named = re.findall(r"\b((?:tools|configs|checkpoints|docs)/[\w./-]+\.(?:py|sh|pth|md|png))",
                       page.read_text())  # fmt: skip
    missing = [name for name in named if not (ROOT / name).exists()]
    elsewhere = {
        "checkpoints/deit_tiny_patch16_224.pth",
        "checkpoints/thinkingvit_3h-6h.pth",
        "configs/segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py",
        "tools/dataset_converters/cityscapes.py",
    }
    assert set(missing) <= elsewhere


@pytest.mark.parametrize("page", PAGES[1:-1], ids=lambda page: page.name)
def test_pages_open_with_their_command(page):
    before = page.read_text().partition("```")[0]
    assert not re.search(r"^(## |\|)", before, re.MULTILINE)


def test_named_targets_exist():
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE))
    defined = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= targets <= defined
