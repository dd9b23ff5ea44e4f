"""Export of a thinking model to a folder of graphs, checked against the model."""

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
from ..utils.checks import check_choice, check_number
from .check import check_graphs, check_host
from .formats import FORMATS, WRITERS, require_onnx, trace
from .graphs import Graph, build_graphs, check_gate, narrow, run_chain
from .host import complete, prepare, resize, windows
from .manifest import describe, fix_size, write_manifest


def export(
    model: nn.Module,
    cfg: Config,
    folder: str | Path,
    images: Sequence[np.ndarray],
    size: Sequence[int] | None = None,
    any_size: bool = False,
    stage: int | None = None,
    format: str = "onnx",
) -> dict:
    """Write a model's graphs and ``manifest.json``, check them, and return the manifest.

    Args:
        model: A thinking segmentor or classifier, in evaluation mode, on the CPU.
        images: At least one real image (H, W, 3) uint8 BGR to check with.
        size: (H, W) of the graphs' images in pixels; None for the window of sliding inference, else
            the size of the first image after the test pipeline.
        any_size: Whether the graphs accept images of any size.
        stage: Stage after which all images exit, for a single graph instead of a gated chain.
        format: ``onnx`` or ``pt2`` (``torch.export``).

    Raises:
        ExportError: If something cannot be exported, or a graph differs from the model.
    """
    backbone = _require_exportable(model)
    check_choice("format", format, FORMATS)
    if stage is None:
        check_gate(backbone.gate)
    else:
        check_number("stage", stage, maximum=backbone.num_stages - 1)
    if format == "onnx":
        require_onnx()
    try:
        divisor = backbone.size_divisor() if any_size else 1
    except ValueError as error:
        raise ExportError(
            f"graphs for any size are not possible: {error}; give one size"
        ) from error
    manifest = describe(model, cfg, divisor)
    if size is None and manifest["slide"]:
        size = manifest["slide"]["crop_size"]
    elif size is None:
        size = prepare(images[0], manifest["preprocessing"]).shape[-2:]
    if not any_size:
        fix_size(manifest, size)
    batches = _batches(manifest, images, size)
    graphs = build_graphs(model, batches[0], stage, any_size)
    files = {name: f"{name}.{format}" for name in graphs}
    decode = [file for name, file in files.items() if name.startswith("decode")]
    stages = [file for file in files.values() if file not in decode]
    manifest |= {
        "format": format,
        "stages": stages,
        "exit_stages": list(range(len(stages))) if stage is None else [stage],
        "decode": decode if "decode0" in graphs else next(iter(decode), None),
        "inputs": {name: graph.inputs for name, graph in graphs.items()},
        "gmacs": _gmacs(graphs, batches[0][:1], backbone.gate.needs_decode_head),
        "gmacs_size": list(batches[0].shape[-2:]),
    }
    if stage is not None:
        manifest["gate"] = {"type": "FixedGate", "stage": stage}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for described in (folder, folder / "int8"):  # it may describe graphs of another export
        (described / "manifest.json").unlink(missing_ok=True)
    _write_graphs(graphs, batches, manifest, folder)
    write_manifest(manifest, folder)
    try:
        host = FORMATS[format](folder)
        opened = dict(zip(stages, host.stages, strict=True)) | dict(
            zip(decode, host.decode, strict=False)
        )
        runs = {name: opened[file] for name, file in files.items()}
        manifest["largest_difference"] = max(
            check_graphs(runs, graphs, batches), check_host(host, model, batches, stage)
        )
    except BaseException:
        (folder / "manifest.json").unlink()  # without it no host runs them
        raise
    manifest["checked_images"] = sum(map(len, batches))
    write_manifest(manifest, folder)
    return manifest


def prepare_windows(manifest: dict, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Inputs (3, H, W) of the graphs as the host prepares them: images, or windows of them."""
    prepared = [prepare(image, manifest["preprocessing"]) for image in images]
    return [x[area] for x in prepared for area in windows(x.shape[-2:], manifest["slide"])]


def _require_exportable(model: nn.Module) -> ThinkingBackbone:
    backbone, kind = getattr(model, "backbone", None), type(model).__name__
    if not isinstance(backbone, ThinkingBackbone):
        raise ExportError(f"{kind} has no thinking backbone to export")
    if (channels := backbone.patch_embed.proj.in_channels) != 3:
        raise ExportError(f"the host reads images of 3 channels, the model {channels}")
    if isinstance(getattr(model, "decode_head", None), nn.ModuleList):
        raise ExportError(f"{kind} has a cascade of decode heads, only one head can be exported")
    return backbone


def _batches(manifest: dict, images: Sequence[np.ndarray], size: Sequence[int]) -> list[Tensor]:
    """Batches (n, 3, H, W) of several n to check with; for any size, the last is smaller."""
    by_size: dict[tuple[int, ...], list[np.ndarray]] = {}
    for number, image in enumerate(images):
        inputs = prepare_windows(manifest, [image])  # one window of each image, at changing places
        completed = complete(inputs[number % len(inputs)], manifest["size_divisor"])
        by_size.setdefault(completed.shape[-2:], []).append(completed)
    if manifest["size"] is not None:  # images smaller than the window are no input
        by_size = {key: same for key, same in by_size.items() if key == tuple(size)}
    if not by_size:
        image = prepare(images[0], manifest["preprocessing"] | {"resize": None})
        by_size[tuple(size)] = [resize(image, size).astype(np.float32)]
    first = next(iter(by_size.values()))
    for flipped in (np.s_[..., ::-1], np.s_[..., ::-1, :], np.s_[..., ::-1, ::-1]):
        if len(first) < 4:
            first.append(first[0][flipped])
    batches = []
    for same in by_size.values():
        x = torch.from_numpy(np.stack(same))
        batches += [part for part in (x[:3], x[3:4], *x[4:].split(4)) if len(part)]
    if manifest["size"] is None:
        half = [max(2 * manifest["size_divisor"], n // 2) for n in batches[0].shape[-2:]]
        height, width = (n - n % manifest["size_divisor"] for n in half)
        batches.append(batches[0][..., :height, :width])
    return batches


def _write_graphs(
    graphs: dict[str, Graph], batches: list[Tensor], manifest: dict, folder: Path
) -> None:
    """Trace and write every graph; axes in which the last batch differs are dynamic."""
    example = run_chain(graphs, batches[0][:2])
    other = run_chain(graphs, batches[-1][:2]) if manifest["size"] is None else None
    for name, graph in graphs.items():
        inputs = {key: example[key] for key in graph.inputs}
        cut = narrow(graph, inputs)
        program = trace(name, cut, inputs, other, manifest["size_divisor"])
        path = folder / f"{name}.{manifest['format']}"
        names = dict(input_names=list(inputs), output_names=list(cut(inputs)))
        WRITERS[manifest["format"]](program, path, **names)


@torch.no_grad()
def _gmacs(graphs: dict[str, Graph], image: Tensor, decodes_all: bool) -> list[float]:
    """Cost of an image that exits after each stage, in 10^9 multiply-accumulates."""
    costs, tensors = {}, {"images": image}
    for name, graph in graphs.items():
        # fused attention is missing from some versions' tables; the plain one is products alone
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            tensors |= graph({key: tensors[key] for key in graph.inputs})
        costs[name] = counter.get_total_flops() / 2e9
    decode = [cost for name, cost in costs.items() if name.startswith("decode")]
    sums = np.cumsum([cost for name, cost in costs.items() if not name.startswith("decode")])
    decode = np.broadcast_to(decode or 0.0, len(sums))  # one for all stages, or one for each
    return (sums + (decode.cumsum() if decodes_all else decode)).tolist()
