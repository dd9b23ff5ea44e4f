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
MARK = re.compile(r"(<!-- table: (\S+) -->\n)\n*(?:\|.*\n)*\n*")
TASKS = {"mIoU": "Semantic Segmentation", "top-1": "Image Classification"}
COLLECTIONS = ("ThinkingSwin", "ThinkingViT")
BASELINES = "Segmenter"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(path: Path) -> str:
    """Markdown of a CSV file, cell by cell."""
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    lines = ["".join(f" {cell} |" if cell else " |" for cell in line) for line in (head, *rows)]
    return "".join(f"|{line}\n" for line in (lines[0], "---|" * len(head), *lines[1:]))


def pages() -> dict[Path, str]:
    """Pages with their tables written anew."""
    found = {}
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))):
        text = path.read_text()
        text = MARK.sub(lambda match: f"{match[1]}\n{table(RESULTS / match[2])}\n", text)
        found[path] = text.rstrip("\n") + "\n"
    return found


def metafiles() -> dict[Path, str]:
    """Metafile of each folder of configs, and the index that imports them."""
    known = {row["config"]: row for row in read(RESULTS / "zoo.csv")}
    configs = sorted(path for path in ROOT.glob("configs/*/*.py") if path.parent.name[0] != "_")
    found = {}
    for folder, members in groupby(configs, key=lambda path: path.parent):
        models = []
        for path in members:
            name, row = str(path.relative_to(ROOT)), known[path.stem]
            model = {
                "Name": path.stem,
                "In Collection": next((c for c in COLLECTIONS if c.lower() in name), BASELINES),
                "Config": name,
                "Metadata": {"Training Data": row["dataset"]},
            }
            if row["GMACs"]:
                model["Metadata"]["GMACs"] = [float(x) for x in row["GMACs"].split(" / ")]
            if row["value"]:
                result = {
                    "Task": TASKS[row["metric"]],
                    "Dataset": row["dataset"],
                    "Metrics": {row["metric"]: float(row["value"].split(" / ")[-1])},
                }
                model["Results"] = [result]
            if weights := re.search(r"checkpoints/\S+\.pth", row["weights"]):
                model["Weights"] = weights[0]
            models.append(model)
        found[folder / "metafile.yml"] = _yaml(dict(Models=models))
    papers = dict.fromkeys(COLLECTIONS, ("ThinkingViT", "https://arxiv.org/abs/2507.10800"))
    papers[BASELINES] = ("Segmenter", "https://arxiv.org/abs/2105.05633")
    datasets = list(dict.fromkeys(row["dataset"] for row in known.values()))
    collections = [
        {
            "Name": name,
            "Metadata": {"Training Data": list(datasets)},
            "Paper": {"Title": title, "URL": url},
            "README": "docs/zoo.md",
        }
        for name, (title, url) in papers.items()
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
