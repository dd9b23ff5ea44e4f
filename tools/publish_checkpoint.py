"""Reduces a training checkpoint to what inference needs: weights and class names.

With ``--config`` it writes a folder as on the Hugging Face hub: config, weights and a model card.
"""

import argparse
import csv
from pathlib import Path

from tvit_seg.cost import stage_gmacs
from tvit_seg.engine.cli import friendly_errors, read_config
from tvit_seg.engine.cli_weights import add_trust_argument
from tvit_seg.inference import load_model
from tvit_seg.weights.io import (
    get_meta,
    get_state_dict,
    read_checkpoint,
    trusting,
    write_checkpoint,
)

_KEPT = ("dataset_meta", "backbone")


def publish_folder(args: argparse.Namespace) -> None:
    """Write a folder that ``tvit_seg.from_pretrained`` reads."""
    cfg = read_config(args.config, {})
    model, checkpoint = load_model(cfg, args.source)
    dataset = cfg.test_dataloader.dataset
    if args.half:
        model.half()
    model.metadata = dict(
        dataset_meta=get_meta(checkpoint).get("dataset_meta", {}), pipeline=dataset.pipeline
    )
    size = cfg.get("crop_size") or model.backbone.img_size
    results = []
    if args.results:
        with args.results.open(newline="") as file:
            results = list(csv.DictReader(file))
    card = dict(
        license=args.license,
        data=args.data,
        costs=stage_gmacs(model, tuple(size)).tolist(),
        results=results,
    )
    model.save_pretrained(args.target, model_card_kwargs=card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="checkpoint written by training")
    parser.add_argument("target", help="file to write; a folder with --config")
    parser.add_argument("--config", help="config of the training: write a folder for the hub")
    parser.add_argument("--license", default="other", help="licence of the weights, for the card")
    parser.add_argument("--data", default="not stated", help="training data, for the card")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="table of a sweep (--csv), for the card"
    )
    parser.add_argument("--half", action="store_true", help="store the weights as float16")
    add_trust_argument(parser)
    args = parser.parse_args()
    with friendly_errors(), trusting(args.trust_checkpoint):
        if args.config:
            publish_folder(args)
            return
        checkpoint = read_checkpoint(args.source)
        known = get_meta(checkpoint)
        meta = {"dataset_meta": {}} | {key: known[key] for key in _KEPT if key in known}
        weights = get_state_dict(checkpoint)
        if args.half:
            weights = {k: w.half() if w.is_floating_point() else w for k, w in weights.items()}
        write_checkpoint({"meta": meta, "state_dict": weights}, args.target)


if __name__ == "__main__":
    main()
