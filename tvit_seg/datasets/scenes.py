"""Procedural scenes of geometric shapes whose difficulty is known.

A scene of difficulty 0 shows one large, clean object whose hue indicates its class. Towards
difficulty 1 objects become more, smaller and fainter and overlap, hue no longer indicates the class
but the direction of the objects' stripes does, and stray strokes, uneven light and noise are added.
The class is always the shape. Few scenes lie between: an early exit pays where images differ.
"""

import json
import os
import tempfile
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset
from tqdm.contrib.concurrent import thread_map

from ..errors import DataError
from ..registry import register
from ..utils.checks import check, check_integer, check_number

Rng = np.random.Generator
FORMAT_VERSION = 2
INDEX_FILE = "scenes.json"
SPLITS = ("train", "val")
MAX_OBJECTS, MAX_STROKES = 3, 3
MIN_SIDE = 32

# Value at difficulty 0, value at 1. Colours are on the scale 0..255.
_RAMPS = {
    "radius": (0.38, 0.28),  # mean radius of objects, in short sides of the image
    "spread": (0.12, 0.20),  # relative deviation of a radius from the mean
    "inside": (1.05, 0.95),  # least distance of a centre from the border, in radii
    "squash": (0.00, 0.10),  # largest shortening of one axis
    "hue": (2.0, 90.0),  # largest deviation from the hue of the class; 90 is any hue
    "contrast": (165.0, 110.0),  # distance of an object's colour from the background's
    "turn": (0.1, 0.3),  # largest rotation of an object, in radians
    "tint": (4.0, 12.0),  # deviation of the background from grey
    "backdrop": (0.0, 8.0),  # strength of the background's texture
    "surface": (0.0, 40.0),  # strength of the objects' stripes
    "light": (0.0, 0.15),  # relative fall of the light across the image
    "blur": (0.4, 0.9),  # sigma in pixels
    "noise": (1.5, 12.0),  # sigma
}


def _regular(corners: int, *radii: float) -> np.ndarray:
    """Corners (N, 2) evenly spaced around the origin, their radii taken in turn."""
    angles = np.arange(corners) * (2 * np.pi / corners)
    return np.stack((np.sin(angles), -np.cos(angles)), 1) * np.resize(radii, (corners, 1))


def _plus(arm: float) -> np.ndarray:
    """Corners (12, 2) of a cross whose arms are ``2 * arm`` wide."""
    reach = np.sqrt(1 - arm**2)
    quarter = np.array([(-arm, -reach), (arm, -reach), (arm, -arm)])
    turn = np.array([(0, 1), (-1, 0)])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


# Contours inside the unit disk; where contours of a shape overlap is a hole.
SHAPES = {
    "disk": [_regular(48, 1.0)],
    "square": [np.sqrt(0.5) * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])],
    "triangle": [_regular(3, 1.0)],
    "ring": [_regular(48, 1.0), _regular(48, 0.52)],
    "cross": [_plus(0.27)],
    "star": [_regular(10, 1.0, 0.42)],
}
CLASSES = ("background", *SHAPES)
_CONTOURS = ([], *SHAPES.values())
_RGB = "3c4048 e65550 f0b43c 6ebe5a 3cb9be 5078e1 be64d2"
PALETTE = [list(bytes.fromhex(colour)) for colour in _RGB.split()]


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x (1, W) and y (H, 1) in short sides, 0 in the middle."""
    y, x = np.ogrid[:height, :width]
    short = np.float32(min(height, width))
    return (x - width // 2) / short, (y - height // 2) / short


def _place(rng: Rng, radii: np.ndarray, inside: float, size: tuple[int, int]) -> np.ndarray:
    """Centres (N, 2) in pixels, each the best of six, so that no object is hidden."""
    centres = np.empty((len(radii), 2))
    for i, radius in enumerate(radii):
        margin = min(radius * inside, min(size) / 2)
        tries = rng.uniform(margin, np.array(size[::-1]) - margin, (6, 2))
        gaps = np.linalg.norm(tries[:, None] - centres[None, :i], axis=2) / (radius + radii[:i])
        centres[i] = tries[gaps.min(axis=1, initial=np.inf).argmax()]
    return centres


def _layout(
    rng: Rng, hardness: float, knobs: SimpleNamespace, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Instances (H, W), 0 the background, then strokes, then objects, and their classes (N,)."""
    short = min(size)
    instances = np.zeros(size, np.uint8)
    num_strokes = rng.binomial(MAX_STROKES, hardness)
    for stroke in range(1, num_strokes + 1):
        points = rng.uniform(0, 1, (3, 2)) * size[::-1]
        thickness = max(1, round(short * rng.uniform(0.008, 0.03)))
        cv2.polylines(instances, [points.astype(np.int32)], False, stroke, thickness)

    num_objects = 1 + rng.binomial(MAX_OBJECTS - 1, hardness)
    labels = rng.integers(1, len(CLASSES), num_objects)
    radii = short * knobs.radius * (1 + knobs.spread * rng.uniform(-1, 1, num_objects))
    radii = np.sort(radii)[::-1]  # small objects on top of large ones
    centres = _place(rng, radii, knobs.inside, size)
    for i, label in enumerate(labels):
        axes = radii[i] * (1 - knobs.squash * rng.uniform(0, 1, 2))
        angle = rng.uniform(-1, 1) * knobs.turn
        cos, sin = np.cos(angle), np.sin(angle)
        contours = [c * axes @ ((cos, sin), (-sin, cos)) + centres[i] for c in _CONTOURS[label]]
        # Four fractional bits keep small shapes from snapping to whole pixels.
        contours = [np.round(16 * contour).astype(np.int32) for contour in contours]
        cv2.fillPoly(instances, contours, num_strokes + 1 + i, shift=4)
    return instances, np.concatenate((np.zeros(num_strokes + 1, labels.dtype), labels))


def _colours(rng: Rng, labels: np.ndarray, knobs: SimpleNamespace) -> np.ndarray:
    """Mean colours (N, 3) of the instances, the background's first."""
    background = rng.uniform(60, 195) + rng.uniform(-1, 1, 3) * knobs.tint
    hue = (labels - 1) * (180 / len(SHAPES)) + rng.uniform(-1, 1, len(labels)) * knobs.hue
    hue = np.where(labels == 0, rng.uniform(0, 180, len(labels)), hue) % 180
    hsv = np.stack((hue, *rng.uniform(190, 255, (2, len(labels)))), 1)
    colours = cv2.cvtColor(hsv[None].astype(np.uint8), cv2.COLOR_HSV2BGR)[0].astype(float)
    # Hue chooses the direction away from the background, contrast alone the distance.
    away = colours - background
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    away *= knobs.contrast * rng.uniform(0.85, 1.15, (len(labels), 1))
    away[0] = 0
    return (background + away).astype(np.float32)


def _texture(
    rng: Rng, instances: np.ndarray, labels: np.ndarray, knobs: SimpleNamespace
) -> np.ndarray:
    """Deviations (H, W, 3) from the mean colours: stripes per instance and blobs over all.

    Stripes of objects are dark and bright, in a direction of their class.
    """
    x, y = _grid(*instances.shape)
    num, objects = len(labels), labels > 0
    angle, phase = rng.uniform(0, 2 * np.pi, (2, num))
    frequency, tint = rng.uniform(2, 12, num), rng.uniform(-1, 1, (num, 3))
    tint *= knobs.backdrop
    slant = rng.uniform(-0.1, 0.1, num)
    angle = np.where(objects, (labels - 1) * (np.pi / len(SHAPES)) + slant, angle)
    frequency = np.where(objects, 9 + frequency / 6, frequency) * 2 * np.pi
    tint = np.where(objects[:, None], knobs.surface, tint).astype(np.float32)
    waves = np.float32((frequency * np.cos(angle), frequency * np.sin(angle), phase))
    kx, ky, phase = waves[:, instances]
    stripes = np.sin(kx * x + ky * y + phase)
    coarse = rng.standard_normal((rng.integers(4, 9), rng.integers(4, 9), 3), np.float32)
    blobs = cv2.resize(coarse, instances.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return tint[instances] * stripes[..., None] + np.float32(knobs.backdrop) * blobs


def render_scene(
    rng: Rng, difficulty: float, size: tuple[int, int] = (128, 128)
) -> tuple[np.ndarray, np.ndarray]:
    """Render one scene; all randomness comes from the generator.

    Args:
        difficulty: From 0, one large clean object, to 1, clutter.
        size: Height and width in pixels.

    Returns:
        The image (H, W, 3), uint8 BGR, and the label (H, W), uint8 indices of ``CLASSES``.
    """
    check_number("difficulty", difficulty, maximum=1)
    hardness = difficulty**4 / (difficulty**4 + (1 - difficulty) ** 4)  # steep in the middle
    knobs = SimpleNamespace(**{k: a + (b - a) * hardness for k, (a, b) in _RAMPS.items()})
    instances, labels = _layout(rng, hardness, knobs, size)
    image = _colours(rng, labels, knobs)[instances]
    image += _texture(rng, instances, labels, knobs)
    x, y = _grid(*size)
    angle = rng.uniform(0, 2 * np.pi)
    image *= np.float32(1 + knobs.light * (np.cos(angle) * x + np.sin(angle) * y))[..., None]
    image = cv2.GaussianBlur(image, (0, 0), knobs.blur)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(knobs.noise)
    return cv2.convertScaleAbs(image.clip(0, 255)), labels.astype(np.uint8)[instances]


def _difficulties(seed: int, split: int, num: int) -> list[float]:
    """Return one difficulty of each of ``num`` equal parts of [0, 1], in random order."""
    # The scene (seed, split, 0) would get the stream of (seed, split): hence the other key.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(split,)))
    return ((rng.permutation(num) + rng.random(num)) / num).round(4).tolist()


def write_scenes(
    root: str | os.PathLike,
    num_train: int = 4000,
    num_val: int = 400,
    size: tuple[int, int] = (128, 128),
    seed: int = 0,
) -> None:
    """Write a dataset of scenes, completely or not at all.

    Images go to ``img_dir/{train,val}``, labels to ``ann_dir/{train,val}``, and ``scenes.json``
    holds the recipe and each scene's difficulty. A folder with the same recipe is left unchanged.

    Args:
        root: Folder to create.
        num_train: At least 1.
        num_val: At least 1.
        size: Height and width in pixels, at least 32 each.
        seed: Every scene depends only on it, its split, its index, its difficulty and the size.

    Raises:
        FileExistsError: The folder holds something else.
    """
    check_integer("num_train", num_train)
    check_integer("num_val", num_val)
    check(min(size) >= MIN_SIDE, "size", size, f"at least {MIN_SIDE} pixels a side")
    root = Path(root).resolve()
    recipe = dict(num_train=num_train, num_val=num_val, size=list(size), seed=seed)
    recipe["version"] = FORMAT_VERSION
    if root.exists() and any(root.iterdir()):
        index = root / INDEX_FILE
        found = json.loads(index.read_text()).get("recipe") if index.exists() else None
        if found != recipe:
            raise FileExistsError(
                f"{root} exists with the recipe {found} instead of {recipe}: "
                "remove the folder or choose another one"
            )
        print_log(f"{root} already has these scenes, nothing to do")
        return

    jobs = []
    for split, num in enumerate((num_train, num_val)):
        jobs += [(split, i, value) for i, value in enumerate(_difficulties(seed, split, num))]
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as folder:
        staged = Path(folder) / root.name
        for kind, name in product(("img_dir", "ann_dir"), SPLITS):
            (staged / kind / name).mkdir(parents=True)

        def write(job: tuple[int, int, float]) -> tuple[str, float]:
            split, index, difficulty = job
            key = f"{SPLITS[split]}/{index:06d}"
            rng = np.random.default_rng((seed, split, index))
            image, label = render_scene(rng, difficulty, size)
            for kind, array in (("img_dir", image), ("ann_dir", label)):
                # A full disk makes opencv return False and say nothing.
                if not cv2.imwrite(str(staged / kind / f"{key}.png"), array):
                    raise OSError(f"could not write {kind}/{key}.png in {staged}")
            return key, difficulty

        index = {"recipe": recipe, "difficulty": dict(thread_map(write, jobs, desc="scenes"))}
        (staged / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n")
        staged.rename(root)


@register("DATASETS")
class SceneDataset(BaseSegDataset):
    """Scenes written by :func:`write_scenes`; each sample carries its ``difficulty``."""

    METAINFO = {"classes": CLASSES, "palette": PALETTE}
    HINT = "; to make them: python tools/make_scenes.py data/scenes --size 96"

    def __init__(self, data_root: str = "data/scenes", img_suffix: str = ".png", **kwargs) -> None:
        super().__init__(data_root=data_root, img_suffix=img_suffix, **kwargs)

    def load_data_list(self) -> list[dict]:
        index = Path(self.data_root) / INDEX_FILE
        if not index.exists():
            raise DataError(f"{index} does not exist{self.HINT}")
        difficulty = json.loads(index.read_text())["difficulty"]
        infos = super().load_data_list()
        for info in infos:
            path = Path(info["img_path"])
            info["difficulty"] = difficulty[f"{path.parent.name}/{path.stem}"]
        return infos
