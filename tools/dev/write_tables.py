"""Writes the tables of figures in README and docs from docs/results/*.csv, and the model index.

A table is marked by a comment with its file; the rows below it are generated:

    <!-- table: scenes.csv -->

Metafiles of the configs and the zoo's table follow from zoo.csv. ``--check`` only compares.
"""

import argparse
import csv
import re
from itertools import groupby
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results"
MARK = re.compile(r"(<!-- table: (\S+) -->\n\n?)((?:\|.*\n)*)")
DATASETS = {
    "ade20k": "ADE20K",
    "cityscapes": "Cityscapes",
    "camvid": "CamVid",
    "labelmefacade": "LabelMeFacade",
    "scenes": "procedural scenes",
    "imagenet": "ImageNet-1K",
    "cifar10": "CIFAR-10",
    "caltech101": "Caltech-101",
}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(path: Path) -> str:
    """Markdown of a CSV file, cell by cell."""
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def pages() -> dict[Path, str]:
    """Pages with their tables written anew."""
    found = {}
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))):
        text = path.read_text()
        found[path] = MARK.sub(lambda match: match[1] + table(RESULTS / match[2]), text)
    return found


def dataset(config: Path) -> str:
    return next(name for key, name in DATASETS.items() if key in config.stem)


def metafiles() -> dict[Path, str]:
    """Metafile of each folder of configs, and the index that imports them."""
    known = {row["config"]: row for row in read(RESULTS / "zoo.csv")}
    configs = sorted(path for path in ROOT.glob("configs/*/*.py") if path.parent.name[0] != "_")
    found = {}
    for folder, members in groupby(configs, key=lambda path: path.parent):
        models = []
        for path in members:
            name, row = str(path.relative_to(ROOT)), known.get(path.stem, {})
            classifies = folder.name == "pretrain"
            model = {
                "Name": path.stem,
                "In Collection": "ThinkingSwin" if "thinkingswin" in path.stem else "ThinkingViT",
                "Config": name,
                "Metadata": {"Training Data": dataset(path)},
            }
            if row.get("gmacs"):
                model["Metadata"]["GMACs"] = [float(x) for x in row["gmacs"].split(" / ")]
            if row.get("value"):
                result = {
                    "Task": "Image Classification" if classifies else "Semantic Segmentation",
                    "Dataset": dataset(path),
                    "Metrics": {row["metric"]: float(row["value"])},
                }
                model["Results"] = [result]
            if row.get("weights"):
                model["Weights"] = row["weights"]
            models.append(model)
        found[folder / "metafile.yml"] = _yaml(dict(Models=models))
    collections = [
        {
            "Name": name,
            "Metadata": {"Training Data": list(DATASETS.values())},
            "Paper": {"URL": "https://arxiv.org/abs/2507.10800", "Title": "ThinkingViT"},
            "README": "README.md",
        }
        for name in ("ThinkingViT", "ThinkingSwin")
    ]
    index = dict(
        Import=[str(path.relative_to(ROOT)) for path in sorted(found)], Collections=collections
    )
    found[ROOT / "model-index.yml"] = _yaml(index)
    return found


def _yaml(content: dict) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def differing() -> dict[Path, str]:
    """Files that are not as generated, with the text that they should have."""
    expected = {**pages(), **metafiles()}
    return {
        path: text
        for path, text in expected.items()
        if not path.is_file() or path.read_text() != text
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    args = parser.parse_args()
    changes = differing()
    names = [str(path.relative_to(ROOT)) for path in changes]
    if args.check and names:
        raise SystemExit(f"not as generated: {', '.join(names)}")
    for path, text in changes.items():
        path.write_text(text)
    print("\n".join(names) or "nothing to change")


if __name__ == "__main__":
    main()
