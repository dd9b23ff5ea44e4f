"""Swap the backbone in mmsegmentation's own configs, then train, test and resume them.

Uses the configs, tools/train.py and tools/test.py of the installed mmsegmentation. A swap changes
the backbone and the channels that heads expect of it, nothing else; the configs import nothing.
Data, schedule and log are then reduced for a CPU, which does not count as a change. Prints a table;
--write puts it into a page.
"""

import argparse
import copy
import difflib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config
from tqdm import tqdm

from tvit_seg.datasets.scenes import CLASSES, write_scenes
from tvit_seg.utils.versions import ONEDL, OPENMMLAB, mm_distribution

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/swap-your-backbone.md"

GATE = dict(type="EntropyGate", threshold=1.0, topk=10)
THINKING = dict(thinking_stages=(3, 6), gate=GATE, num_classes=1000)
SWIN_STAGES = ((3, 3, 6, 12), (3, 6, 12, 24))


def keeping(kind: str, stages: tuple) -> dict:
    """Settings of a backbone that keeps its arguments."""
    options = {"type": f"tvit_seg.{kind}", **THINKING, "thinking_stages": stages}
    return {"pretrained": None, **{f"backbone.{key}": value for key, value in options.items()}}


def replacing(kind: str, **options) -> dict:
    """Settings of a backbone in place of one with other arguments."""
    backbone = {"_delete_": True, "type": f"tvit_seg.{kind}", **THINKING, **options}
    return {"pretrained": None, "backbone": backbone}


VIT = keeping("ThinkingViT", (3, 6))
# ViT-L becomes as wide as DeiT-S
NARROW_VIT = {**VIT, "backbone.embed_dims": 384, "backbone.num_heads": 6}
SETR = {
    **NARROW_VIT,
    "backbone.init_cfg": None,
    "decode_head.in_channels": 384,
    **{f"auxiliary_head.{i}.in_channels": 384 for i in range(3)},
}
SWIN = keeping("ThinkingSwin", SWIN_STAGES)
NO_INIT_SWIN = {**SWIN, "backbone.init_cfg": None}
NEW_SWIN = replacing("ThinkingSwin", thinking_stages=SWIN_STAGES)
RESNET = {**NEW_SWIN, "decode_head.in_channels": 768, "auxiliary_head.in_channels": 384}

# mmsegmentation's config -> settings of the model, in the notation of --cfg-options
SWAPS = {
    "fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py": RESNET,
    "pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py": RESNET,
    "deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py": {
        **RESNET,
        "decode_head.c1_in_channels": 96,
    },
    # its two heads read maps of one size, as a ViT's are
    "ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py": {
        **replacing("ThinkingViT", out_indices=(2, 5, 8, 11)),
        "decode_head.0.in_channels": 384,
        "decode_head.1.in_channels": 384,
    },
    "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py": {
        **NEW_SWIN,
        "decode_head.in_channels": [96, 192, 384, 768],
    },
    "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py": NO_INIT_SWIN,
    "knet/knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512.py": SWIN,
    "mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py": NO_INIT_SWIN,
    "vit/vit_deit-s16_mln_upernet_8xb2-160k_ade20k-512x512.py": VIT,
    "setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py": SETR,
    "setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py": SETR,
    "setr/setr_vit-l-mla_8xb1-160k_ade20k-512x512.py": {
        **NARROW_VIT,
        "backbone.init_cfg": None,
        "backbone.with_cls_token": True,
        "neck.in_channels": [384] * 4,
    },
    "segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py": VIT,
    "segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512.py": VIT,
    "dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py": {**VIT, "backbone.thinking_stages": (3, 12)},
}


def mmseg_files() -> Path:
    """Folder of the configs and tools of the installed mmsegmentation release."""
    return Path(find_spec("mmseg").origin).parent / ".mim"


def missing_imports(path: Path) -> list[str]:
    """Packages that a config imports and that are not installed."""
    imports = Config.fromfile(path, import_custom_modules=False).get("custom_imports", {})
    names = imports.get("imports", [])
    packages = {name.split(".")[0] for name in ([names] if isinstance(names, str) else names)}
    return sorted(package for package in packages if find_spec(package) is None)


def swap(path: Path) -> tuple[Config, list[str]]:
    """Return a config of ``SWAPS`` with its new backbone, and the diff between the models."""
    before = Config.fromfile(path)
    after = copy.deepcopy(before)
    settings = SWAPS[f"{path.parent.name}/{path.name}"]
    after.merge_from_dict({f"model.{key}": copy.deepcopy(value) for key, value in settings.items()})
    texts = [list(_lines(cfg.model.to_dict(), "model=", "")) for cfg in (before, after)]
    return after, list(difflib.unified_diff(*texts, n=2, lineterm=""))[2:]


def _lines(node: object, prefix: str, end: str, width: int = 79) -> Iterator[str]:
    """Lines of a config in mmsegmentation's style: dicts on one line where they fit."""
    line = f"{prefix}{_inline(node)}{end}"
    indent = " " * (len(prefix) - len(prefix.lstrip()))
    nested = isinstance(node, dict) and any(isinstance(child, dict) for child in node.values())
    if isinstance(node, dict) and (len(line) > width or nested):
        brackets = ("dict(", ")")
        children = [(f"{indent}    {key}=", child) for key, child in node.items()]
    elif isinstance(node, list) and any(isinstance(child, dict) for child in node):
        brackets = ("[", "]")
        children = [(f"{indent}    ", child) for child in node]
    else:
        yield line
        return
    yield prefix + brackets[0]
    for start, child in children:
        yield from _lines(child, start, ",")
    yield indent + brackets[1] + end


def _inline(node: object) -> str:
    if isinstance(node, dict):
        return f"dict({', '.join(f'{key}={_inline(child)}' for key, child in node.items())})"
    return repr(node)


def count_lines(diff: list[str]) -> str:
    """Numbers of lines that a diff adds and removes."""
    return " ".join(f"{sign}{sum(line[0] == sign for line in diff)}" for sign in "+-")


def shrink(cfg: Config, data: Path, size: int = 96) -> None:
    """Make a config small enough for a CPU, on a folder of scenes of ``size`` pixels."""
    for head in _heads(cfg.model):
        head["num_classes"] = len(CLASSES)
    cfg.model.data_preprocessor["size"] = (size, size)
    kinds = ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")
    cfg.train_pipeline = cfg.test_pipeline = [dict(type=kind) for kind in kinds]
    for split, sampler in (("train", "InfiniteSampler"), ("val", "DefaultSampler")):
        dataset = dict(
            type="tvit_seg.SceneDataset",
            data_root=str(data),
            data_prefix=dict(img_path=f"img_dir/{split}", seg_map_path=f"ann_dir/{split}"),
            pipeline=cfg.test_pipeline,
        )
        sampler = dict(type=sampler, shuffle=split == "train")
        loader = dict(batch_size=2, num_workers=0, sampler=sampler, dataset=dataset)
        cfg[f"{split}_dataloader"] = loader
    cfg.test_dataloader = cfg.val_dataloader
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 2
    cfg.default_hooks.logger.interval = 1


def _heads(node: object) -> Iterator[dict]:
    """Everything in a model with classes of its own, except the backbone, which has ImageNet's."""
    if isinstance(node, dict):
        if "num_classes" in node:
            yield node
        children = [child for key, child in node.items() if key != "backbone"]
    else:
        children = node if isinstance(node, (list, tuple)) else []
    for child in children:
        yield from _heads(child)


@dataclass
class Row:
    """Results for one config; each field is a cell of the table."""

    config: str
    backbone: str
    lines: str
    trains: str = "no"
    tests: str = "no"
    resumes: str = "no"


def run(name: str, work_dir: Path) -> Row:
    """Swap, train two iterations, test, resume for another two, with mmsegmentation's tools."""
    path = mmseg_files() / "configs" / name
    if absent := missing_imports(path):
        return Row(name, "", "", *[f"needs {', '.join(absent)}"] * 3)
    data, folder = work_dir / "scenes", work_dir / path.stem
    folder.mkdir(parents=True, exist_ok=True)
    if not data.is_dir():
        write_scenes(data, 6, 2, (96, 96), seed=0)
    cfg, diff = swap(path)
    (folder / "swap.diff").write_text("\n".join(diff) + "\n")
    row = Row(name, cfg.model.backbone.type.rpartition(".")[-1], count_lines(diff))
    shrink(cfg, data)
    config = work_dir / path.name  # in the folder the runner would write its own over it
    cfg.dump(config)

    if not re.search(r"\[2/2\].*loss: \d", call("train", config, folder)):
        return row
    row.trains = "yes"
    if re.search(r"mIoU: +\d", call("test", config, folder, str(folder / "iter_2.pth"))):
        row.tests = "yes"
    log = call("train", config, folder, "--resume", "--cfg-options", "train_cfg.max_iters=4")
    if re.search(r"\[4/4\].*loss: \d", log) and not re.search(r"Iter\(train\) \[[12]/4\]", log):
        row.resumes = "yes"
    for checkpoint in folder.glob("*.pth"):
        checkpoint.unlink()
    return row


def call(tool: str, config: Path, folder: Path, *arguments: str) -> str:
    """Run mmsegmentation's tools/<tool>.py and return its output; '' if it failed."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    if mm_distribution() == "OpenMMLab":
        # mmengine's checkpoints contain more than weights; these were just written
        environment["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    command = [sys.executable, mmseg_files() / f"tools/{tool}.py", config, *arguments]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    command += ["--work-dir", folder]
    done = subprocess.run(command, env=environment, cwd=config.parent, **pipes)
    log = done.stdout
    (folder / f"{tool}{'-resume' * ('--resume' in arguments)}.txt").write_text(log)
    if done.returncode:
        print(f"{tool} failed on {config}:\n" + "\n".join(log.splitlines()[-15:]))
        return ""
    return log


def table(rows: list[Row]) -> str:
    """Table in Markdown, below a line that names the stack."""
    names = ["torch", "timm", *(ONEDL if mm_distribution() == "OneDL" else OPENMMLAB)]
    stack = ", ".join(f"{name} {version(name)}" for name in names)
    header = ("config", "backbone", "lines changed", "trains", "tests", "resumes")
    cells = [f"| {' | '.join(row)} |" for row in (header, *map(astuple, rows))]
    cells.insert(1, "|---" * len(header) + "|")
    return "\n".join([f"{mm_distribution()} ({stack}):", "", *cells])


def write(text: str, page: Path) -> None:
    """Replace this stack's table in a page."""
    name = mm_distribution()
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{begin}.*?{end}", re.DOTALL)
    replaced, count = pattern.subn(lambda _: f"{begin}\n{text}\n{end}", page.read_text())
    if not count:
        raise SystemExit(f"error: {page} has no lines {begin} and {end}")
    page.write_text(replaced)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="configs with one of these in their name (all)")
    parser.add_argument("--work-dir", default="work_dirs/swap", help="folder for everything")
    parser.add_argument("--diff", action="store_true", help="only print what the swaps change")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    args = parser.parse_args()
    chosen = [name for name in SWAPS if not args.names or any(n in name for n in args.names)]
    if not chosen:
        parser.error(f"no config has {' or '.join(args.names)} in its name: {', '.join(SWAPS)}")
    if args.diff:
        for name in chosen:
            path = mmseg_files() / "configs" / name
            print(name, *(missing_imports(path) or swap(path)[1]), sep="\n")
        return
    text = table([run(name, Path(args.work_dir).resolve()) for name in tqdm(chosen)])
    print(text)
    if args.write:
        write(text, PAGE)


if __name__ == "__main__":
    main()
