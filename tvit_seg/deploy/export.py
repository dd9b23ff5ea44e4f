"""A thinking model as a folder of graphs, checked against the model before it is done."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..errors import ExportError
from ..models.backbones import ThinkingBackbone
from .check import check_graphs, check_host
from .gating import check_gate
from .graphs import Graph, build_graphs
from .host import ThinkingHost, complete, prepare, resize, windows
from .manifest import describe, write_manifest
from .narrow import narrow
from .onnx_file import require_onnx, write_onnx
from .pt2_file import Pt2Host, write_pt2
from .trace import trace

FORMATS = {"onnx": ThinkingHost, "pt2": Pt2Host}
"""Formats, and what runs them."""


def export(
    model: nn.Module,
    cfg: Config,
    folder: str | Path,
    pictures: Sequence[np.ndarray],
    size: Sequence[int] | None = None,
    any_size: bool = False,
    stage: int | None = None,
    format: str = "onnx",
) -> dict:
    """Writes a model's graphs and ``manifest.json``, and checks them on real images.

    Args:
        model: A thinking segmentor or classifier, in evaluation mode, on the CPU.
        cfg: Its config.
        folder: Where to write; made if needed.
        pictures: Real images (H, W, 3) uint8 BGR to check with, at least one.
        size: (H, W) in pixels of the images that graphs are for; None for the window of sliding
            inference, else for the size of the first picture after the test pipeline.
        any_size: Whether the graphs shall take images of any size.
        stage: Index of a stage where all images stop, for a single graph in place of a gated chain.
        format: ``onnx`` or ``pt2`` (``torch.export``).

    Returns:
        The manifest.

    Raises:
        ExportError: If something cannot be exported, or what was written is not the model.
    """
    backbone = _require_backbone(model)
    if format not in FORMATS:
        raise ExportError(f"format={format!r} must be one of {', '.join(FORMATS)}")
    if stage is None:
        check_gate(backbone.gate)
    elif not 0 <= stage < backbone.num_stages:
        raise ExportError(f"stage={stage} must lie in [0, {backbone.num_stages - 1}]")
    if format == "onnx":
        require_onnx()
    divisor = 1
    if any_size:
        try:
            divisor = backbone.size_divisor()
        except ValueError as error:
            raise ExportError(f"graphs for any size are not possible: {error}; name one") from error
    preprocessing, slide = (describe(model, cfg, None)[key] for key in ("preprocessing", "slide"))
    if size is None:
        size = slide["crop_size"] if slide else prepare(pictures[0], preprocessing).shape[-2:]
    manifest = describe(model, cfg, None if any_size else size, divisor)
    batches = _batches(manifest, pictures, size)
    graphs = build_graphs(model, batches[0], stage, any_size)
    example, other = (_chain(graphs, images[:2]) for images in (batches[0], batches[-1]))
    manifest |= {
        "format": format,
        "stages": [f"{name}.{format}" for name in graphs if name != "decode"],
        "exit_stages": list(range(len(graphs) - ("decode" in graphs)))
        if stage is None
        else [stage],
        "decode": f"decode.{format}" if "decode" in graphs else None,
        "inputs": {name: graph.inputs for name, graph in graphs.items()},
        "gmacs": _gmacs(graphs, _chain(graphs, batches[0][:1]), backbone.gate.needs_decode_head),
        "gmacs_size": list(batches[0].shape[-2:]),
    }
    if stage is not None:
        manifest["gate"] = {"type": "FixedGate", "stage": stage}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for manifested in (folder, folder / "int8"):  # whose graphs are about to be replaced, or stale
        (manifested / "manifest.json").unlink(missing_ok=True)
    for name, graph in graphs.items():
        path = folder / f"{name}.{format}"
        inputs = {key: example[key] for key in graph.inputs}
        cut = narrow(graph, inputs)
        program = trace(name, cut, inputs, other if any_size else None, divisor)
        if format == "onnx":
            write_onnx(program, inputs, list(cut(inputs)), path)
        else:
            write_pt2(program, path)
    write_manifest(manifest, folder)
    try:
        host = FORMATS[format](folder)
        runs = dict(zip(graphs, [*host.stages, host.decode], strict=False))
        manifest["largest_difference"] = max(
            check_graphs(runs, graphs, batches), check_host(host, model, batches, stage)
        )
        manifest["checked_images"] = sum(map(len, batches))
    except BaseException:
        (folder / "manifest.json").unlink()  # nobody shall run them
        raise
    write_manifest(manifest, folder)
    return manifest


def _require_backbone(model: nn.Module) -> ThinkingBackbone:
    """The model's backbone; raises ExportError if it or what is around it cannot be exported."""
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, ThinkingBackbone):
        raise ExportError(f"{type(model).__name__} has no thinking backbone to export")
    channels = backbone.patch_embed.proj.in_channels
    if channels != 3:
        raise ExportError(f"the host loop reads colour pictures, the model {channels} channels")
    if isinstance(getattr(model, "decode_head", None), nn.ModuleList):
        raise ExportError(
            f"{type(model).__name__} has a cascade of decode heads, which cannot be exported: one "
            "head, in an EncoderDecoder or ThinkingEncoderDecoder, can"
        )
    return backbone


def crops(manifest: dict, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the host runs graphs on: prepared pictures (3, H, W), or the windows over them."""
    found = []
    for picture in pictures:
        image = prepare(picture, manifest["preprocessing"])
        found += [image[area] for area in windows(image.shape[-2:], manifest["slide"])]
    return found


def _batches(manifest: dict, pictures: Sequence[np.ndarray], size: Sequence[int]) -> list[Tensor]:
    """Images (n, 3, H, W) of several numbers n; where any size is possible, the last of another."""
    by_size: dict[tuple[int, ...], list[np.ndarray]] = {}
    for number, picture in enumerate(pictures):
        found = crops(manifest, [picture])  # of windows one from each picture, from all over them
        image = complete(found[number % len(found)], manifest["size_divisor"])
        by_size.setdefault(image.shape[-2:], []).append(image)
    if manifest["size"] is not None:  # pictures smaller than the window are no input
        by_size = {key: images for key, images in by_size.items() if key == tuple(size)}
    if not by_size:
        picture = prepare(pictures[0], manifest["preprocessing"] | {"resize": None})
        by_size[tuple(size)] = [resize(picture, size).astype(np.float32)]
    first = next(iter(by_size.values()))
    for flipped in (np.s_[..., ::-1], np.s_[..., ::-1, :], np.s_[..., ::-1, ::-1]):
        if len(first) < 4:
            first.append(first[0][flipped])
    batches = []
    for images in by_size.values():
        stacked = torch.from_numpy(np.stack(images))
        while len(stacked):
            count = (3, 1, 4)[len(batches) % 3]
            batches.append(stacked[:count])
            stacked = stacked[count:]
    if manifest["size"] is None:
        half = [max(2 * manifest["size_divisor"], n // 2) for n in batches[0].shape[-2:]]
        height, width = (n - n % manifest["size_divisor"] for n in half)
        batches.append(batches[0][..., :height, :width])
    return batches


@torch.no_grad()
def _chain(graphs: dict[str, Graph], images: Tensor) -> dict[str, Tensor]:
    """All tensors that arise when graphs run one after the other."""
    tensors = {"images": images}
    for graph in graphs.values():
        tensors |= graph({key: tensors[key] for key in graph.inputs})
    return tensors


@torch.no_grad()
def _gmacs(graphs: dict[str, Graph], tensors: dict[str, Tensor], decodes_all: bool) -> list[float]:
    """Cost of an image that stops after each stage, in 10^9 multiply-accumulates."""
    costs = {}
    for name, graph in graphs.items():
        # fused attention is missing from some versions' tables; the plain one is products alone
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            graph({key: tensors[key] for key in graph.inputs})
        costs[name] = counter.get_total_flops() / 2e9
    decode = costs.pop("decode", 0.0)
    sums = np.cumsum(list(costs.values()))
    times = np.arange(1, len(sums) + 1) if decodes_all else 1
    return (sums + decode * times).tolist()
