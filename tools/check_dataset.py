"""Read a whole dataset; list its problems and count its classes.

Exit status 1 if something must be corrected.
"""

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path

from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from prettytable import PrettyTable

import tvit_seg  # noqa: F401, registers the datasets
from tvit_seg.datasets import TimmDataset
from tvit_seg.datasets.check import survey_config
from tvit_seg.datasets.colours import convert_colours
from tvit_seg.datasets.survey import Survey, by_kind, format_problems, survey_of
from tvit_seg.engine.cli import ConfigOptions, friendly_errors, read_config
from tvit_seg.errors import DataError
from tvit_seg.visualization.survey_plot import plot_surveys

PLOTS = (".png", ".jpg", ".jpeg", ".pdf", ".svg")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "config", nargs="?", help="config file, to check its train, val and test data"
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="without a config: folder of images, or of class folders",
    )
    parser.add_argument(
        "--labels", metavar="DIR", help="folder of label maps, named like the images"
    )
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="class names in order, or their number"
    )
    parser.add_argument("--img-suffix", help="suffix of image names (the most frequent)")
    parser.add_argument("--seg-map-suffix", help="suffix of label names (the most frequent)")
    parser.add_argument(
        "--ignore-index", type=int, default=255, help="label of ignored pixels (255)"
    )
    parser.add_argument(
        "--reduce-zero-label",
        action="store_true",
        help="label 0 is ignored, others are lowered by one",
    )
    parser.add_argument(
        "--convert-colours",
        type=Path,
        metavar="DIR",
        help="first convert label pictures of colours to label maps in DIR, and check these",
    )
    parser.add_argument(
        "--colours", nargs="+", type=colour, metavar="R,G,B", help="colours of the classes in order"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw histogram and samples")
    parser.add_argument("--samples", type=int, default=4, help="plotted per dataset (4)")
    parser.add_argument(
        "--show", type=int, default=10, help="files listed per kind of problem (10)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all findings as JSON")
    parser.add_argument("--workers", type=int, help="threads for reading (one per CPU)")
    parser.add_argument(
        "--cfg-options", nargs="+", action=ConfigOptions, default={}, metavar="KEY=VALUE"
    )
    args = parser.parse_args(argv)
    if (args.config is None) == (args.images is None):
        parser.error("name a config, or folders with --images")
    if args.config is not None and (args.labels or args.classes):
        parser.error("--labels and --classes go with --images; a config has its own")
    if args.labels is not None and not args.classes:
        parser.error("--labels needs --classes: their names in order, or how many there are")
    if (args.convert_colours is None) != (args.colours is None):
        parser.error("--convert-colours and --colours go together")
    if args.colours is not None and args.labels is None:
        parser.error("--convert-colours needs --images, --labels and --classes")
    for name in ("samples", "show", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name} {value} must be at least 1")
    if not 0 <= args.ignore_index <= 255:
        parser.error(f"--ignore-index {args.ignore_index} must lie in [0, 255]")
    args.classes = class_names(args.classes or [])
    if args.labels is not None and not 1 <= len(args.classes) <= 255:
        parser.error(f"--classes: {len(args.classes)}, must be between 1 and 255")
    if args.colours is not None and len(args.colours) != len(args.classes):
        parser.error(f"--colours: {len(args.colours)}, for {len(args.classes)} classes")
    if args.plot is not None and args.plot.suffix.lower() not in PLOTS:
        parser.error(f"--plot {args.plot} must end in one of {', '.join(PLOTS)}")
    return args


def survey(args: argparse.Namespace) -> list[Survey]:
    if args.config is not None:
        cfg = read_config(args.config, args.cfg_options)
        init_default_scope(cfg.get("default_scope", "mmseg"))
        return survey_config(cfg, args.workers)
    folder = Path(args.images)
    if args.labels is None and folder.is_dir() and not any(p.is_dir() for p in folder.iterdir()):
        ending = args.img_suffix or most_frequent_ending(args.images)
        prefix, meta = dict(img_path=args.images), dict(classes=("unknown",))
        dataset = BaseSegDataset(
            data_prefix=prefix, img_suffix=ending, metainfo=meta, pipeline=[], lazy_init=True
        )
        return [survey_of(dataset, needs_labels=False).run(args.workers)]
    if args.labels is None:
        dataset = TimmDataset(str(folder.parent), folder.name)
    else:
        labels = args.labels
        if args.colours is not None:
            labels = str(args.convert_colours)
            others = convert_colours(
                Path(args.labels), args.convert_colours, args.colours, args.ignore_index
            )
            print(f"label maps written to {labels}")
            for (red, green, blue), count in others.most_common(args.show):
                print(f"colour {red},{green},{blue} is of no class: {count} pixels are ignored")
        dataset = BaseSegDataset(
            data_prefix=dict(img_path=args.images, seg_map_path=labels),
            img_suffix=args.img_suffix or most_frequent_ending(args.images),
            seg_map_suffix=args.seg_map_suffix or most_frequent_ending(labels),
            metainfo=dict(classes=args.classes, palette=args.colours or ()),
            ignore_index=args.ignore_index,
            reduce_zero_label=args.reduce_zero_label,
            pipeline=[],
            lazy_init=True,
        )
    return [survey_of(dataset).run(args.workers)]


def colour(text: str) -> tuple[int, ...]:
    return tuple(int(value) for value in text.split(","))


def class_names(given: list[str]) -> list[str]:
    if len(given) == 1 and given[0].isdigit():
        return [f"class {i}" for i in range(int(given[0]))]
    return given


def most_frequent_ending(folder: str) -> str:
    if not os.path.isdir(folder):
        raise DataError(f"not found: {folder!r} (working folder {os.getcwd()})")
    endings = Counter(path.suffix for path in Path(folder).rglob("*") if path.is_file())
    if not endings:
        raise DataError(f"{folder} is empty")
    return endings.most_common(1)[0][0]


def describe(found: Survey, show: int) -> str:
    """Report on one dataset."""
    lines = [f"\n{found.name}: {len(found.samples)} samples are fine"]
    if found.read:
        lines.append(str(table(found)))
    if found.ignored or found.outside:
        whole = found.pixels.sum() + found.ignored + found.outside
        lines.append(
            f"{100 * found.ignored / whole:.2f} % of all pixels are ignored, "
            f"{100 * found.outside / whole:.2f} % have a value that is not allowed"
        )
    if found.problems:
        lines.append(format_problems(found.problems, show))
    lines += [f"hint: {hint}" for hint in found.hints]
    lines += [f"remark: {remark}" for remark in found.remarks]
    return "\n".join(lines)


def table(found: Survey) -> PrettyTable:
    labelled = found.pixels is not None
    result = PrettyTable(["label", "class", *["pixels (%)"] * labelled, "images", "images (%)"])
    result.align = "r"
    result.align["class"] = "l"
    for index, name in enumerate(found.classes):
        count = int(found.images[index])
        share = [f"{found.shares[index]:.3f}"] * labelled
        result.add_row([index, name, *share, count, f"{100 * count / max(1, found.read):.1f}"])
    return result


def as_json(found: Survey) -> dict:
    return dict(
        name=found.name,
        samples=len(found.samples),
        classes=found.classes,
        pixels=None if found.pixels is None else found.pixels.tolist(),
        images=found.images.tolist(),
        ignored=found.ignored,
        outside=found.outside,
        problems=by_kind(found.problems),
        hints=found.hints,
        remarks=found.remarks,
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with friendly_errors():
        found = survey(args)
    for part in found:
        print(describe(part, args.show))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([as_json(part) for part in found], indent=2))
    if args.plot is not None:
        if any(part.samples for part in found):
            plot_surveys(found, args.plot, args.samples)
            print(f"plot written to {args.plot}")
        else:
            print("no plot: no sample is free of problems")
    problems = sum(len(part.problems) for part in found)
    print(f"\n{problems} problems" if problems else "\nnothing is wrong")
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
