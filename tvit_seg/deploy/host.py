"""Run exported thinking graphs: this file needs NumPy and onnxruntime only, so copy it anywhere.

    host = ThinkingHost("exported")  # what tools/export_onnx.py wrote
    for result in host([cv2.imread("street.png")]):
        print(result.labels.shape, result.exit_stage, result.entropy)

After each thinking stage, images (in sliding inference: windows) whose entropy is below
``host.threshold`` exit; the others continue. The threshold may be changed at any time.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]


class Result(NamedTuple):
    """Prediction for an image of W windows (1 without sliding).

    ``labels`` (H, W) classes of the pixels, or one class; ``exit_stage`` (W,); ``entropy`` (W,
    number of stages) in nats, NaN where not measured.
    """

    labels: np.ndarray
    exit_stage: np.ndarray
    entropy: np.ndarray


class ThinkingHost:
    """The exit loop around exported graphs.

    Args:
        folder: Folder with ``manifest.json`` and the graphs.
        threads: Threads of onnxruntime; None for its default.
        providers: Providers of onnxruntime, such as ``["CUDAExecutionProvider"]``.
    """

    def __init__(
        self,
        folder: str | Path,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ):
        self.threads, self.providers = threads, list(providers)
        self.manifest = json.loads(Path(folder, "manifest.json").read_text())
        self.threshold = self.manifest["gate"].get("threshold", 0.0)
        if self.manifest.get("weights") == "int8" and not self.manifest.get("reduce_range"):
            warn_of_saturation()
        self.stages = [self.open(Path(folder, name)) for name in self.manifest["stages"]]
        names = decode_files(self.manifest)
        decode = {name: self.open(Path(folder, name)) for name in dict.fromkeys(names) if name}
        self.decode: list[Any] = [decode.get(name) for name in names]  # of each stage

    def open(self, path: Path) -> Callable[[Arrays], Arrays]:
        """Open a graph as a function of named arrays that ignores superfluous ones.

        An int8 graph runs image by image: it quantises activations by the range of a whole tensor,
        so that in a batch the result of an image would depend on the others.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or 0
        session = onnxruntime.InferenceSession(path, options, self.providers)
        names = [node.name for node in session.get_inputs()]
        outputs = [node.name for node in session.get_outputs()]

        def run(arrays: Arrays) -> Arrays:
            inputs = {name: arrays[name] for name in names}
            return dict(zip(outputs, session.run(outputs, inputs), strict=True))

        def run_each(arrays: Arrays) -> Arrays:
            count = len(arrays[names[0]])
            found = [run({name: arrays[name][i : i + 1] for name in names}) for i in range(count)]
            return {name: np.concatenate([one[name] for one in found]) for name in outputs}

        return run_each if self.manifest.get("weights") == "int8" else run

    def think(self, images: np.ndarray) -> Arrays:
        """Run stages until every image has exited; images that exit cost nothing further.

        Args:
            images: (B, 3, H, W) float32, normalised.

        Returns:
            ``exit_stage`` (B,), ``entropy`` (B, number of stages), NaN where not measured, and from
            the graphs ``seg_logits`` (B, K, H, W), ``logits`` (B, C).
        """
        count, (height, width) = len(images), images.shape[-2:]
        found: dict[str, np.ndarray] = {
            "exit_stage": np.zeros(count, np.int64),
            "entropy": np.full((count, len(self.stages)), nan, np.float32),
        }
        active, arrays = np.arange(count), {"images": self.pad(images)}
        for stage, run in enumerate(self.stages):
            arrays |= run(arrays)
            if self.manifest["gate"].get("reads") == "pixels":
                arrays |= self.decode[stage](arrays)
            entropy = arrays.pop("entropy", np.full(len(active), nan, np.float32))
            found["entropy"][active, stage] = entropy
            stop = (entropy < self.threshold) | (stage == len(self.stages) - 1)
            if stop.any():
                stopped = arrays if stop.all() else {k: x[stop] for k, x in arrays.items()}
                if self.decode[stage] and "seg_logits" not in stopped:
                    stopped = stopped | self.decode[stage](stopped)
                found["exit_stage"][active[stop]] = self.manifest["exit_stages"][stage]
                if "seg_logits" in stopped:
                    stopped["seg_logits"] = stopped["seg_logits"][..., :height, :width]
                for name in {"seg_logits", "logits"} & stopped.keys():
                    part = stopped[name]
                    whole = found.setdefault(name, np.empty((count, *part.shape[1:]), part.dtype))
                    whole[active[stop]] = part
            if stop.all():
                break
            active = active[~stop]
            arrays.pop("seg_logits", None)
            arrays = {name: x[~stop] for name, x in arrays.items()}
        return found

    def pad(self, images: np.ndarray) -> np.ndarray:
        """Pad images (B, 3, H, W) with zeros to a size that the graphs accept, or raise."""
        size = self.manifest["size"]
        if size is None:
            return complete(images, self.manifest["size_divisor"])
        if list(images.shape[-2:]) != size:
            raise ValueError(
                f"an image or window of {images.shape[-2:]} pixels, but the graphs are for {size}: "
                "resize it, or export for any size"
            )
        return images

    def __call__(self, images: Sequence[np.ndarray], batch_size: int | None = None) -> list[Result]:
        """Segment, or classify, images of any sizes.

        Args:
            images: (H, W, 3) uint8 each, BGR as OpenCV reads them.
            batch_size: Number of images or windows per batch; None for the manifest's.

        Raises:
            ValueError: If an image is not of this shape (``cv2.imread`` returns None for a file
                that it cannot read), or has a size that the graphs do not accept.
        """
        batch_size = batch_size or self.manifest["batch_size"]
        inputs = [prepare(image, self.manifest["preprocessing"]) for image in images]
        areas = [windows(x.shape[-2:], self.manifest["slide"]) for x in inputs]
        by_shape: dict[tuple, list] = {}  # windows that can run in one batch: image and position
        for i, x in enumerate(inputs):
            for area in areas[i]:
                by_shape.setdefault(x[area].shape, []).append((i, area))
        logits: list = [None] * len(inputs)
        exits: list[list] = [[] for _ in inputs]
        entropies: list[list] = [[] for _ in inputs]
        for slots in by_shape.values():
            for start in range(0, len(slots), batch_size):
                chunk = slots[start : start + batch_size]
                found = self.think(np.stack([inputs[i][area] for i, area in chunk]))
                for n, (i, area) in enumerate(chunk):
                    exits[i].append(found["exit_stage"][n])
                    entropies[i].append(found["entropy"][n])
                    if "seg_logits" not in found:
                        logits[i] = found["logits"][n]
                        continue
                    part = found["seg_logits"][n]
                    if logits[i] is None:
                        logits[i] = np.zeros((len(part), *inputs[i].shape[-2:]), np.float32)
                    logits[i][area] += part
        return [
            Result(self.label(x, where, image.shape[:2]), np.array(stages), np.array(entropy))
            for x, where, image, stages, entropy in zip(
                logits, areas, images, exits, entropies, strict=True
            )
        ]

    def label(self, logits: np.ndarray, areas: list[tuple], size: Sequence[int]) -> np.ndarray:
        """Classes at the original size (H, W), from sums of logits over windows.

        One class at a time is resized, so that no array of all classes has that size.
        """
        if logits.ndim == 1:
            return np.asarray(logits.argmax())
        cover = np.zeros(logits.shape[-2:], np.float32)
        for area in areas:
            cover[area] += 1
        resized = (
            resize(scores / cover, size, self.manifest["align_corners"]) for scores in logits
        )
        best = next(resized)
        if len(logits) == 1:  # a single class: its probability against a threshold
            return (1 / (1 + np.exp(-best)) > self.manifest["mask_threshold"]).astype(np.int64)
        labels = np.zeros(best.shape, np.int64)
        for index, scores in enumerate(resized, 1):
            np.copyto(labels, index, where=scores > best)
            best = np.maximum(best, scores)
        return labels


def warn_of_saturation(cpu_info: str | Path = "/proc/cpuinfo") -> None:
    """Warn if int8 products saturate: on x86 without VNNI, pairs of them add up in 16 bits."""
    try:
        features = Path(cpu_info).read_text()
    except OSError:  # not Linux: unknown
        return
    if "avx2" in features and "vnni" not in features:
        warnings.warn(
            "this processor has no VNNI instructions: int8 graphs are no faster, and sums of "
            "products saturate, which changes results; write them with --int8 --reduce-range",
            stacklevel=3,
        )


def decode_files(manifest: dict) -> list[str | None]:
    """Name the decode graph of each stage: the same for all unless the head is nested."""
    decode = manifest["decode"]
    return decode if isinstance(decode, list) else [decode] * len(manifest["stages"])


def prepare(image: np.ndarray, how: dict) -> np.ndarray:
    """Resize and normalise an image.

    Args:
        image: (H, W, 3) uint8, BGR as OpenCV reads it.
        how: ``preprocessing`` of the manifest.

    Returns:
        (3, H', W') float32.
    """
    shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise ValueError(
            f"an image must be an array (H, W, 3) of uint8, got {shape or image} of {dtype}"
        )
    size = new_size(shape[:2], how["resize"])
    image = np.rint(resize(image.astype(np.float32).transpose(2, 0, 1), size))
    if how["channels"] == "RGB":
        image = image[::-1]
    mean, std = (np.array(how[name], np.float32)[:, None, None] for name in ("mean", "std"))
    return (image - mean) / std


def complete(images: np.ndarray, divisor: int) -> np.ndarray:
    """Pad images (..., H, W) with zeros on the bottom and right to multiples, at least two."""
    margin = [(0, max(-n % divisor, 2 * divisor - n)) for n in images.shape[-2:]]
    return np.pad(images, [(0, 0)] * (images.ndim - 2) + margin)


def windows(size: Sequence[int], slide: dict | None) -> list[tuple]:
    """Slices of the windows over an image of (H, W) pixels, row by row; one without ``slide``."""
    slide = slide or {"crop_size": size, "stride": size}
    steps = []
    for length, crop, stride in zip(size, slide["crop_size"], slide["stride"], strict=True):
        last = max(length - crop, 0)  # the last window ends at the border
        steps.append([slice(start, start + crop) for start in (*range(0, last, stride), last)])
    return [(..., rows, columns) for rows in steps[0] for columns in steps[1]]


def new_size(size: Sequence[int], how: dict | None) -> tuple[int, int]:
    """(H, W) after mmcv's ``Resize``: a scale of (W, H), or to fit into with ``keep_ratio``."""
    if how is None:
        return size[0], size[1]
    if not how["keep_ratio"]:
        return how["scale"][1], how["scale"][0]
    pairs = zip(sorted(how["scale"]), sorted(size), strict=True)
    factor = min(most / length for most, length in pairs)
    height, width = (int(length * factor + 0.5) for length in size)
    return height, width


def resize(x: np.ndarray, size: Sequence[int], align_corners: bool = False) -> np.ndarray:
    """Resize (..., h, w) to (..., H, W), bilinear as in torch and OpenCV."""
    for axis, count in ((-1, size[1]), (-2, size[0])):  # rows last: they are copied whole
        length = x.shape[axis]
        if count == length:
            continue
        at = np.linspace(0, length - 1, count, dtype=np.float32)
        if not align_corners:
            at = np.maximum((np.arange(count, dtype=np.float32) + 0.5) * (length / count) - 0.5, 0)
        low = np.minimum(at.astype(np.int64), length - 1)
        share = (at - low).astype(np.float32)
        share = share[:, None] if axis == -2 else share
        high = np.minimum(low + 1, length - 1)
        x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return x
