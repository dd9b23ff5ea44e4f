"""File formats of graphs (ONNX, ``torch.export``): tracing, writing, running, int8."""

import inspect
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from ..errors import ExportError
from ..utils.text import first_line
from ..utils.versions import ONNX, unfit
from .graphs import Graph
from .host import Arrays, ThinkingHost, decode_files
from .manifest import write_manifest

Tensors = dict[str, Tensor]
_MAX_BATCH = 2**20


class Pt2Host(ThinkingHost):
    """The host loop on files of ``torch.export``; arguments for onnxruntime have no effect."""

    def open(self, path: Path) -> Callable[[Arrays], Arrays]:
        program = torch.export.load(path)
        # torch's guards reject a single image although the graph supports it
        guarded = "check_guards" in inspect.signature(program.module).parameters
        module = program.module(**({"check_guards": False} if guarded else {}))
        names = self.manifest["inputs"][path.stem]

        @torch.no_grad()
        def run(arrays: Arrays) -> Arrays:
            found = module({name: torch.from_numpy(arrays[name]) for name in names})
            return {name: x.numpy() for name, x in found.items()}

        return run


FORMATS = {"onnx": ThinkingHost, "pt2": Pt2Host}  # the hosts that run them


def trace(
    name: str, graph: Graph, example: Tensors, other: Tensors | None, divisor: int
) -> ExportedProgram:
    """Trace a graph for any number of images.

    Args:
        name: For messages.
        graph: In evaluation mode.
        example: Inputs for at least two images: exporters treat a batch of one as a constant.
        other: Inputs of another size, if the graph is for any size; axes that differ are dynamic.
        divisor: Dynamic heights and widths of images are multiples of it, in pixels.
    """
    batch = Dim("batch", max=_MAX_BATCH)  # torch 2.6 excludes a bound that it chooses itself
    shapes = {key: {0: batch} for key in graph.inputs}
    for key, open_axes in shapes.items() if other is not None else ():
        pairs = zip(example[key].shape, other[key].shape, strict=True)
        open_axes |= {axis: Dim.AUTO for axis, (a, b) in enumerate(pairs) if axis and a != b}
        if key == "images":
            open_axes |= {2: divisor * Dim("rows"), 3: divisor * Dim("columns")}
    inputs = {key: example[key] for key in graph.inputs}
    dynamic = {"tensors": shapes}
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(graph, (inputs,), dynamic_shapes=dynamic, strict=False)
    except ExportError:
        raise
    except Exception as error:  # the exporter's exception classes are not public
        message = f"{name} cannot be exported: {first_line(error)}"
        constants = re.search(r"Constraints violated \((.*?)\)", str(error))
        if constants and "batch" in constants[1].split(", "):
            message = constant_batch(name, len(next(iter(inputs.values()))))
        elif constants:
            message = f"{name} accepts images of one size only: {constants[1]} became constants, "
            message += "so export for one (--size)"
        raise ExportError(message) from error


def constant_batch(name: str, count: int) -> str:
    """Message for a graph that accepts only the batch size of its example."""
    return (
        f"{name} accepts batches of {count} images only: a layer uses the number of images as a "
        "Python number, such as len(x); use x.shape[0] itself, or -1 in a reshape"
    )


def require_onnx() -> None:
    """Raise ExportError if a package is missing or torch is too old."""
    missing = [x for x in ("onnx", "onnxscript", "onnxruntime") if find_spec(x) is None]
    reasons = (
        [f"{', '.join(missing)} missing (pip install '.[deploy]')"] if missing else unfit(ONNX)
    )
    if reasons:
        raise ExportError(f"ONNX: {reasons[0]}. torch.export works without (--format pt2)")


def write_pt2(program: ExportedProgram, path: Path, **names: list[str]) -> None:
    """Write a program for ``torch.export.load(path).module(check_guards=False)``."""
    torch.export.save(program, path)


def write_onnx(program: ExportedProgram, path: Path, **names: list[str]) -> None:
    """Write a program as one ONNX file; ``names`` are ``input_names`` and ``output_names``."""
    try:
        with _quiet():
            written = torch.onnx.export(program, **names, dynamo=True, verbose=False)
    except Exception as error:  # the exporter wraps errors in its own classes
        reason = first_line(error.__cause__ or error)
        raise ExportError(f"{path.name}: not possible in ONNX: {reason}") from error
    written.save(path, external_data=False)
    _name_axes(path)


def _name_axes(path: Path) -> None:
    """Give dynamic axes meaningful names; torch numbers them."""
    import onnx

    model = onnx.load(path)
    names: dict[str, str] = {}
    for value in model.graph.input:
        dims = [dim.dim_param for dim in value.type.tensor_type.shape.dim]
        axes = ("batch", "", "height", "width") if value.name == "images" else ("batch",)
        names |= {dim: name for dim, name in zip(dims, axes, strict=False) if dim}
    # intermediate shapes predate the optimiser; readers infer their own
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
    onnx.save(model, path)


WRITERS = {"onnx": write_onnx, "pt2": write_pt2}


def quantize(folder: str | Path, target: str | Path, reduce_range: bool = False) -> None:
    """Convert a folder of ONNX graphs to int8 matrix products with per-channel weights.

    Args:
        folder: From :func:`~tvit_seg.deploy.export`.
        target: Folder for the int8 graphs.
        reduce_range: Quantise weights to 7 bits, for x86 processors without VNNI, whose sums of
            8-bit products saturate.
    """
    folder, target = Path(folder), Path(target)
    manifest = json.loads((folder / "manifest.json").read_text())
    if manifest["format"] != "onnx":
        raise ExportError(f"int8 graphs are made of ONNX graphs, not of {manifest['format']}")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(filter(None, [*manifest["stages"], *decode_files(manifest)])):
        with _quiet():  # it advises to optimise graphs first, which torch has done
            quantize_dynamic(
                folder / name,
                target / name,
                # onnxruntime has no fast convolution in int8, and patches are a small part
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                reduce_range=reduce_range,
            )
    manifest |= {"weights": "int8", "reduce_range": reduce_range}
    for checked in ("largest_difference", "checked_images"):  # of the graphs in full precision
        del manifest[checked]
    write_manifest(manifest, target)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence loggers: exporters log long reports of errors that they raise anyway."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
