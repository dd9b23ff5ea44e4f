"""Damages checkpoints in many ways, converts them, and loads them into the model they are for.

The checkpoints are small ones of every family: the authors', timm's, mmseg's and ours. A change
must end in an error, or show in the conversion's report, or be none; all other weights must be as
without it.
"""

import argparse
import random
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzzing import Verdict, add_limits, isolated, report, run_all
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tvit_seg import ThinkingSwin, ThinkingViT
from tvit_seg.errors import CheckpointError
from tvit_seg.registry import MODELS
from tvit_seg.weights.architecture import read_architecture
from tvit_seg.weights.convert import to_mmseg
from tvit_seg.weights.load import load_pretrained
from tvit_seg.weights.publish import read_source
from tvit_seg.weights.stage import extract_stage

DATA = Path(__file__).parents[2] / "tests/data"
SWIN_STAGES = ((1, 1, 2), (1, 2, 4))
SUFFIXES = (".pth", ".legacy.pth", ".safetensors", ".npz")
UNCHECKED = (".legacy.pth", ".safetensors")
"""Formats without checksums: a changed value inside a tensor cannot be told from the right one."""


def references() -> dict[str, dict[str, Tensor]]:
    """Weights of every family, by name."""
    found = {}
    for path in sorted(DATA.glob("*_1h-2h.npz")):
        with np.load(path) as file:
            names = [name for name in file.files if name.startswith("param/")]
            found[path.stem] = {k[6:]: torch.from_numpy(file[k]).float() for k in names}
    vit = dict(img_size=32, patch_size=8, num_heads=2, num_classes=5)
    swin = dict(embed_dims=16, depths=(1, 1, 1), num_heads=(1, 2, 4), num_classes=5, window_size=4)
    ours = ThinkingViT(thinking_stages=(1, 2), embed_dims=128, num_layers=2, **vit)
    found["ours"] = ours.state_dict()
    found["timm ViT"] = VisionTransformer(embed_dim=128, depth=2, **vit).state_dict()
    found["mmseg ViT"] = to_mmseg(extract_stage(found["ours"], 1)[0])
    found["our Swin"] = ThinkingSwin(thinking_stages=SWIN_STAGES, **swin).state_dict()
    options = {**swin, "embed_dim": swin.pop("embed_dims")}
    options.pop("embed_dims")
    found["timm Swin"] = SwinTransformer(img_size=64, **options).state_dict()
    return found


def convert(path: Path, name: str) -> dict[str, Any]:
    """Reads, converts and loads a file; every weight of the model, and the report."""
    weights, _ = read_source(path)
    stages = SWIN_STAGES if name == "our Swin" else None
    known = read_architecture(weights, thinking_stages=stages)
    model = MODELS.build(known)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)  # what is not loaded is the same each time
    found = load_pretrained(model, str(path))
    model.eval()
    with torch.no_grad():
        features = model(torch.zeros(1, known["in_channels"], 64, 64))
    return dict(
        weights={key: value.numpy() for key, value in model.state_dict().items()},
        finite=all(bool(torch.isfinite(x).all()) for x in features),
        told=[*found.missing, *found.partial, *found.cropped, *found.resized, *found.dropped],
        dropped=[*weights.report.dropped, *found.dropped],
    )


# ---------------------------------------------------------------- damage

Weights = dict[str, Tensor]


@dataclass
class Case:
    """A damaged file.

    Attributes:
        name: Of the reference.
        what: Was done to it.
        write: Writes it to a path without suffix and returns the path.
        target: The entry that was changed, if one was.
        harmless: Whether all weights must be as without the change.
        unseen: Whether nothing in the file could tell.
    """

    name: str
    what: str
    write: Callable[[Path], Path]
    target: str | None = None
    harmless: bool = False
    unseen: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.what}"


def save(obj: Any, path: Path, suffix: str = ".pth") -> Path:
    """Writes in one of the formats that are read."""
    path = path.with_name(path.name + suffix)
    if suffix == ".safetensors":
        save_file({k: v.contiguous().clone() for k, v in obj.items()}, path)
    elif suffix == ".npz":
        np.savez(path, **{f"param/{k}": v.numpy() for k, v in obj.items()})
    else:
        sys.setrecursionlimit(50000)
        torch.save(obj, path, _use_new_zipfile_serialization=suffix == ".pth")
        sys.setrecursionlimit(1000)
    return path


def damaged_file(name: str, weights: Weights, rng: random.Random) -> Case:
    """Bytes flipped, cut off, repeated or put in."""
    suffix = rng.choice(SUFFIXES)
    how = rng.choice(["flipped", "flipped", "cut", "zeroed", "doubled", "inserted"])
    place = rng.choice([rng.random(), rng.random() * 0.01, 1 - rng.random() * 0.01])
    seed = rng.randrange(2**31)

    def write(path: Path) -> Path:
        path = save(weights, path, suffix)
        data = bytearray(path.read_bytes())
        at = min(int(place * len(data)), len(data) - 1)
        bits = random.Random(seed)
        if how == "flipped":
            data[at] ^= 1 << bits.randrange(8)
        elif how == "cut":
            del data[at:]
        elif how == "zeroed":
            data[at : at + 64] = bytes(len(data[at : at + 64]))
        elif how == "doubled":
            data += bytes(data)
        else:
            data[at:at] = bits.randbytes(16)
        path.write_bytes(data)
        return path

    what = f"{suffix} {how} at {100 * place:.2f} %"
    return Case(name, what, write, unseen=suffix in UNCHECKED and how in ("flipped", "zeroed"))


def changed_entry(name: str, weights: Weights, rng: random.Random) -> Case:
    """One entry gone, renamed, of another shape or type, or with absurd values."""
    target = rng.choice(list(weights))
    value = weights[target]
    garbage = [None, 3, "text", [value], {"inner": value}, value.tolist()]
    ways: dict[str, Any] = {
        "is a rank higher": value[None],
        "is a rank lower": value[0] if value.ndim else value.reshape(1),
        "is flat": value.flatten(),
        "is one longer": torch.cat((value, value[:1])) if value.ndim else value,
        "is one shorter": value[:-1] if value.ndim else value,
        "is twice as long": torch.cat((value, value)) if value.ndim else value,
        "is transposed": value.T.contiguous() if value.ndim == 2 else value[None],
        "is empty": value[:0] if value.ndim else value.new_zeros(0),
        "has no shape": value.sum(),
        "is of integers": value.to(torch.int64),
        "is of booleans": value > 0,
        "is complex": value.to(torch.complex64),
        "is of bytes": value.to(torch.uint8),
        "has a NaN": value.float().flatten().index_fill(0, torch.tensor(0), torch.nan),
        "has an infinity": value.float().flatten().index_fill(0, torch.tensor(0), torch.inf),
        "is sparse": value.to_sparse(),
    }
    for what in ("has a NaN", "has an infinity"):
        ways[what] = ways[what].view(value.shape)
    harmless = {
        "is of float64": value.double() if value.is_floating_point() else value,
        "is a view": torch.cat((value, value))[: len(value)] if value.ndim else value,
        "is a parameter": torch.nn.Parameter(value) if value.is_floating_point() else value,
    }
    odd = {"garbage": rng.choice(garbage)}
    what = rng.choice(["is gone", "is renamed", *ways, *ways, *harmless, *odd])
    changed = dict(weights)
    if what == "is gone":
        del changed[target]
    elif what == "is renamed":
        letters = list(target)
        letters[rng.randrange(len(letters))] = rng.choice("abcxyz0123456789._/ é\0")
        renamed = "".join(letters)
        what = f"is renamed to {renamed!r}"
        changed[renamed] = changed.pop(target)
    elif what == "garbage":
        changed[target] = odd[what]
        what = f"is a {type(odd[what]).__name__}"
    else:
        changed[target] = {**ways, **harmless}[what]
    found = changed.get(target)
    same = isinstance(found, Tensor) and _equal(found, value)
    return Case(
        name,
        f"{target} {what}",
        partial(save, changed),
        target,
        harmless=what in harmless or same,
        unseen=what == "is transposed" and found.shape == value.shape,
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.layout == other.layout and one.dtype == other.dtype and torch.equal(one, other)


def other_container(name: str, weights: Weights, rng: random.Random) -> Case:
    """The right weights in containers that people use, or in wrong ones."""
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    key = rng.choice(["state_dict", "model", "weights", "net", "ema", "params", ""])
    known = ("state_dict", "model")
    deep: Any = dict(weights)
    for _ in range(rng.choice([2, 50, 3000])):  # deeper than Python recurses
        deep = {"state_dict": deep}
    ways = {
        f"under {key!r}": ({key: weights}, key in known),
        f"under {key!r}, wrapped": ({key: wrapped}, key in known),
        "wrapped": (wrapped, True),
        "beside others": ({"model": weights, "epoch": 3, "args": [1, {"a": None}]}, True),
        "with a strange meta": ({"state_dict": weights, "meta": rng.choice([[], 3, "x"])}, True),
        "with a stranger's backbone": (
            {"state_dict": weights, "meta": {"backbone": rng.choice([7, {"x": 1}, []])}}, True,
        ),
        "with more entries": ({**weights, "more": torch.ones(3), "blocks.9": torch.ones(1)}, True),
        "in reverse": (dict(reversed(weights.items())), True),
        "as pairs": (list(weights.items()), False),
        "as values": (list(weights.values()), False),
        "a single tensor": (torch.ones(3), False),
        "a text": ("weights", False),
        "empty": ({}, False),
        "empty inside": ({"state_dict": {}}, False),
        "None inside": ({"state_dict": None}, False),
        "numbers as names": (dict(enumerate(weights.values())), False),
        "some numbers as names": ({**weights, 3: torch.ones(1)}, False),
        "too deep": (deep, False),
        "a text among them": ({**weights, "note": "hello"}, False),
    }  # fmt: skip
    what = rng.choice(list(ways))
    obj, harmless = ways[what]
    return Case(name, what, partial(save, obj), harmless=harmless)


def draw(found: dict[str, Weights], count: int, seed: int) -> list[Case]:
    """Damage of all kinds."""
    rng = random.Random(seed)
    kinds = [damaged_file, changed_entry, changed_entry, other_container]
    drawn: dict[str, Case] = {}
    while len(drawn) < count:
        name = rng.choice(list(found))
        case = rng.choice(kinds)(name, found[name], rng)
        drawn[str(case)] = case
    return list(drawn.values())


# ---------------------------------------------------------------- judgement


def judge(case: Case, expected: dict[str, Any]) -> Verdict:
    """Converts a damaged file and says how that ends."""
    with tempfile.TemporaryDirectory() as folder:
        path = case.write(Path(folder, "weights"))
        try:
            found = convert(path, case.name)
        except (CheckpointError, FileNotFoundError) as error:
            return ("unclear" if len(str(error)) > 3000 else "refused"), str(error)
    if not found["finite"]:
        return "silent", "the model's features are not finite"
    differing = {
        key
        for key in expected["weights"].keys() & found["weights"].keys()
        if not np.array_equal(found["weights"][key], expected["weights"][key])
    }
    added = found["weights"].keys() ^ expected["weights"].keys()
    if added:
        told = set(found["told"]) - set(expected["told"]) or case.what.endswith("is gone")
        right = told and explains(case, added) and not (differing or case.harmless)
        return ("right" if right else "silent"), f"a model with {sorted(added)}"
    if case.harmless:
        return ("silent", f"{differing} differ") if differing else ("right", "the same weights")
    if differing <= set(found["told"]):
        new = set(found["told"]) - set(expected["told"])
        return ("right", f"told: {new}") if new or not differing else ("silent", str(differing))
    if case.unseen and len(differing) <= 2:
        return "right", f"nothing in the file tells: {differing} differ"
    return "silent", f"{differing - set(found['told'])} differ and are not in the report"


def explains(case: Case, names: set[str]) -> bool:
    """Whether a model that has or lacks these parameters is what the changed entry asks for."""
    return case.target is not None and all(
        re.search(r"^(head|norm\d|recycle|pruning)\.|bias$", name) for name in names
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_limits(parser, cases=500)
    args = parser.parse_args(argv)
    found = references()
    expected = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, weights in found.items():
            path = save(weights, Path(folder, name))
            expected[name] = isolated(partial(convert, path, name), args.seconds, args.megabytes)
            if not isinstance(expected[name], dict):
                raise SystemExit(f"{name} does not convert: {expected[name]}")
    cases = [
        (str(case), partial(judge, case, expected[case.name]))
        for case in draw(found, args.cases, args.seed)
    ]
    return report(run_all(cases, args, "checkpoints"), args.json)


if __name__ == "__main__":
    sys.exit(main())
