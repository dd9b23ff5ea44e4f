"""Write the procedural scenes, or draw a contact sheet of them."""

import argparse

import cv2
import numpy as np

from tvit_seg.datasets.scenes import PALETTE, render_scene, write_scenes


def contact_sheet(size: int, seed: int, rows: int = 9, columns: int = 6) -> np.ndarray:
    """Images with a label overlay next to each; difficulty rises from 0 in the first row to 1."""
    colours = np.array(PALETTE, np.uint8)[:, ::-1]
    sheet = []
    for row in range(rows):
        tiles = []
        for column in range(columns):
            rng = np.random.default_rng((seed, row, column))
            image, label = render_scene(rng, row / (rows - 1), (size, size))
            tiles += [image, cv2.addWeighted(image, 0.3, colours[label], 0.7, 0)]
        sheet.append(np.concatenate(tiles, axis=1))
    return np.concatenate(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", default="data/scenes", help="folder to create")
    parser.add_argument("--num-train", type=int, default=4000)
    parser.add_argument("--num-val", type=int, default=400)
    parser.add_argument("--size", type=int, default=96, help="side of an image in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preview", metavar="FILE", help="only draw a contact sheet to FILE")
    args = parser.parse_args()
    if args.preview is None:
        write_scenes(args.root, args.num_train, args.num_val, (args.size, args.size), args.seed)
    elif not cv2.imwrite(args.preview, contact_sheet(args.size, args.seed)):
        parser.error(f"could not write {args.preview}")


if __name__ == "__main__":
    main()
