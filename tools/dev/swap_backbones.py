"""Swaps the backbone in mmsegmentation's own configs, then trains, tests and resumes them.

Takes the config files and the tools/train.py and tools/test.py that the installed mmsegmentation
came with. A swap changes the backbone and the channels that heads expect of it, nothing else; the
configs import nothing. Data, schedule and log are then made small enough for a CPU, apart from what
counts as changed. Prints a table; --write puts it into a page.
"""

import argparse
import copy
import difflib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

from tvit_seg.datasets.scenes import CLASSES, write_scenes
from tvit_seg.utils.versions import ONEDL, OPENMMLAB, mm_distribution

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/swap-your-backbone.md"

GATE = dict(type="EntropyGate", threshold=1.0, topk=10)
# for configs with a ViT: it keeps its arguments
VIT = {
    "pretrained": None,
    "backbone.type": "tvit_seg.ThinkingViT",
    "backbone.thinking_stages": (3, 6),
    "backbone.gate": GATE,
    "backbone.num_classes": 1000,
}
# ViT-L becomes as wide as DeiT-S
NARROW_VIT = {**VIT, "backbone.embed_dims": 384, "backbone.num_heads": 6}
SETR = {
    **NARROW_VIT,
    "backbone.init_cfg": None,
    "decode_head.in_channels": 384,
    **{f"auxiliary_head.{i}.in_channels": 384 for i in range(3)},
}
SWIN_STAGES = ((3, 3, 6, 12), (3, 6, 12, 24))
# for configs with a Swin: it keeps its arguments
SWIN = {
    "pretrained": None,
    "backbone.type": "tvit_seg.ThinkingSwin",
    "backbone.thinking_stages": SWIN_STAGES,
    "backbone.gate": GATE,
    "backbone.num_classes": 1000,
}
# in place of other pyramids
NEW_SWIN = {
    "pretrained": None,
    "backbone": dict(
        _delete_=True,
        type="tvit_seg.ThinkingSwin",
        thinking_stages=SWIN_STAGES,
        gate=GATE,
        num_classes=1000,
    ),
}
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
        "pretrained": None,
        "backbone": dict(
            _delete_=True,
            type="tvit_seg.ThinkingViT",
            out_indices=(2, 5, 8, 11),
            thinking_stages=(3, 6),
            gate=GATE,
            num_classes=1000,
        ),
        "decode_head.0.in_channels": 384,
        "decode_head.1.in_channels": 384,
    },
    "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py": {
        **NEW_SWIN,
        "decode_head.in_channels": [96, 192, 384, 768],
    },
    "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py": {
        **SWIN,
        "backbone.init_cfg": None,
    },
    "knet/knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512.py": SWIN,
    "mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py": {
        **SWIN,
        "backbone.init_cfg": None,
    },
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
    """Where the installed mmsegmentation keeps its configs and tools."""
    found = Path(find_spec("mmseg").origin).parent / ".mim"
    if not (found / "configs").is_dir():
        raise SystemExit(f"error: no configs in {found}; install a release of mmsegmentation")
    return found


def missing_imports(path: Path) -> list[str]:
    """Packages that a config imports and that are not installed."""
    named = Config.fromfile(path, import_custom_modules=False).get("custom_imports", {})
    imports = named.get("imports", [])
    packages = {name.split(".")[0] for name in ([imports] if isinstance(imports, str) else imports)}
    return sorted(package for package in packages if find_spec(package) is None)


def swap(path: Path) -> tuple[Config, list[str]]:
    """Swaps the backbone of one of ``SWAPS``.

    Args:
        path: mmsegmentation's config file.

    Returns:
        The new config, and the unified diff between the two models, inheritance resolved.
    """
    before = Config.fromfile(path)
    after = copy.deepcopy(before)
    settings = SWAPS[f"{path.parent.name}/{path.name}"]
    after.merge_from_dict({f"model.{key}": copy.deepcopy(value) for key, value in settings.items()})
    texts = [list(_lines(dict(model=cfg.model.to_dict()), "", ",")) for cfg in (before, after)]
    return after, list(difflib.unified_diff(*texts, n=2, lineterm=""))[2:]


def _lines(node: object, prefix: str, end: str, width: int = 79) -> Iterator[str]:
    """A config as mmsegmentation writes them: what fits on one line is on one line."""
    line = f"{prefix}{_inline(node)}{end}"
    indent = " " * (len(prefix) - len(prefix.lstrip()) + 4 * bool(prefix))
    if isinstance(node, dict) and (len(line) > width or not prefix or _nested(node)):
        brackets = ("dict(", ")")
        children = [(f"{indent}{key}=", child) for key, child in node.items()]
    elif isinstance(node, list) and any(isinstance(child, dict) for child in node):
        brackets = ("[", "]")
        children = [(indent, child) for child in node]
    else:
        yield line
        return
    if prefix:
        yield prefix + brackets[0]
    for start, child in children:
        yield from _lines(child, start, "," if prefix else "")
    if prefix:
        yield indent[:-4] + brackets[1] + end


def _inline(node: object) -> str:
    if isinstance(node, dict):
        return f"dict({', '.join(f'{key}={_inline(child)}' for key, child in node.items())})"
    return repr(node)


def _nested(node: dict) -> bool:
    return any(isinstance(child, dict) for child in node.values())


def count_lines(diff: list[str]) -> str:
    """How many lines a diff adds and removes."""
    return " ".join(f"{sign}{sum(line[0] == sign for line in diff)}" for sign in "+-")


def shrink(cfg: Config, data: Path, size: int = 96) -> None:
    """Makes a config small enough for a CPU, on the embedded dataset.

    Args:
        cfg: Any of mmsegmentation's.
        data: Folder of scenes.
        size: Side of an image in pixels.
    """
    for head in _heads(cfg.model):
        head["num_classes"] = len(CLASSES)
    cfg.model.data_preprocessor["size"] = (size, size)
    kinds = ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")
    cfg.train_pipeline = cfg.test_pipeline = [dict(type=kind) for kind in kinds]
    for split, sampler in (("train", "InfiniteSampler"), ("val", "DefaultSampler")):
        cfg[f"{split}_dataloader"] = dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type=sampler, shuffle=split == "train"),
            dataset=dict(
                type="tvit_seg.SceneDataset",
                data_root=str(data),
                data_prefix=dict(img_path=f"img_dir/{split}", seg_map_path=f"ann_dir/{split}"),
                pipeline=cfg.test_pipeline,
            ),
        )
    cfg.test_dataloader = cfg.val_dataloader
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2)
    cfg.merge_from_dict(
        {"default_hooks.checkpoint.interval": 2, "default_hooks.logger.interval": 1}
    )


def _heads(node: object) -> Iterator[dict]:
    """Everything below a model that has classes of its own; the backbone's are ImageNet's."""
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
    """What became of one config; each field a cell of the table."""

    config: str
    backbone: str
    lines: str
    trains: str = "no"
    tests: str = "no"
    resumes: str = "no"


class Bench:
    """Runs mmsegmentation's tools on swapped configs.

    Args:
        work_dir: Folder for everything that is written.
    """

    def __init__(self, work_dir: Path):
        self.work_dir = work_dir
        self.files = mmseg_files()
        self.data = work_dir / "scenes"
        if not self.data.is_dir():
            write_scenes(self.data, 6, 2, (96, 96), seed=0)

    def run(self, name: str) -> Row:
        """Swaps, trains two iterations, tests, resumes for another two."""
        path = self.files / "configs" / name
        absent = missing_imports(path)
        if absent:
            why = f"needs {', '.join(absent)}"
            return Row(name, "", "", why, why, why)
        cfg, diff = swap(path)
        row = Row(name, cfg.model.backbone.type.rpartition(".")[-1], count_lines(diff))
        shrink(cfg, self.data)
        folder = self.work_dir / path.stem
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "swap.diff").write_text("\n".join(diff) + "\n")
        config = self.work_dir / path.name  # in the folder the runner would write its own over it
        cfg.dump(config)

        log = self.call("train", config, folder)
        if not self.reached(log, 2):
            return row
        row.trains = "yes"
        log = self.call("test", config, folder, str(folder / "iter_2.pth"))
        row.tests = "yes" if re.search(r"mIoU: +\d", log) else "no"
        log = self.call(
            "train", config, folder, "--resume", "--cfg-options", "train_cfg.max_iters=4"
        )
        again = re.search(r"Iter\(train\) \[[12]/4\]", log)
        row.resumes = "yes" if self.reached(log, 4) and not again else "no"
        for checkpoint in folder.glob("*.pth"):
            checkpoint.unlink()
        return row

    def call(self, tool: str, config: Path, folder: Path, *arguments: str) -> str:
        """Runs mmsegmentation's tools/<tool>.py and returns what it printed; '' if it failed."""
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
        if mm_distribution() == "OpenMMLab":
            # its own checkpoints hold more than weights; these were written a moment ago
            environment["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
        script = self.files / "tools" / f"{tool}.py"
        done = subprocess.run(
            [sys.executable, script, config, *arguments, "--work-dir", folder],
            env=environment,
            cwd=self.work_dir,
            capture_output=True,
            text=True,
            check=False,
        )
        log = done.stdout + done.stderr
        (folder / f"{tool}{'-resume' * ('--resume' in arguments)}.txt").write_text(log)
        if done.returncode:
            print(f"{tool} failed on {config}:\n" + "\n".join(log.splitlines()[-15:]))
            return ""
        return log

    def reached(self, log: str, iteration: int) -> bool:
        """Whether a log shows a loss in the last iteration."""
        return bool(re.search(rf"Iter\(train\) \[{iteration}/{iteration}\].*loss: \d", log))


def table(rows: list[Row]) -> str:
    """The table in Markdown, below a line that names the stack."""
    names = ["torch", "timm", *(ONEDL if mm_distribution() == "OneDL" else OPENMMLAB)]
    stack = ", ".join(f"{name} {version(name)}" for name in names)
    header = "| config | backbone | lines changed | trains | tests | resumes |"
    cells = [
        f"| {row.config} | {row.backbone} | {row.lines} | {row.trains} | {row.tests} "
        f"| {row.resumes} |"
        for row in rows
    ]
    ruler = "|---|---|---|---|---|---|"
    return "\n".join([f"{mm_distribution()} ({stack}):", "", header, ruler, *cells])


def write(text: str, page: Path) -> None:
    """Replaces this stack's table in a page."""
    name = mm_distribution()
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{begin}.*?{end}", re.DOTALL)
    replaced, count = pattern.subn(lambda _: f"{begin}\n{text}\n{end}", page.read_text())
    if not count:
        raise SystemExit(f"error: {page} has no lines {begin} and {end}")
    page.write_text(replaced)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="configs with one of these in their name; all")
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
    bench = Bench(Path(args.work_dir).resolve())
    rows = []
    for name in chosen:
        rows.append(bench.run(name))
        print(rows[-1], flush=True)
    text = table(rows)
    print(text)
    if args.write:
        write(text, PAGE)


if __name__ == "__main__":
    main()
