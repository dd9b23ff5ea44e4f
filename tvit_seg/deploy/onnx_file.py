"""Graphs as ONNX files."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ..errors import ExportError
from ..utils.text import first_line
from ..utils.versions import ONNX, unfit
from .quiet import quiet

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Raises ExportError if a package is missing, or torch too old, with what helps."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"{' and '.join(missing)} missing: pip install {' '.join(missing)} (or the extra: "
            "pip install '.[deploy]')"
        )
    if wrong := unfit(ONNX):
        raise ExportError(f"ONNX: {wrong[0]}. torch.export does, too (--format pt2)")


def write_onnx(
    program: ExportedProgram, inputs: dict[str, Tensor], outputs: list[str], path: Path
) -> None:
    """Writes a program as one ONNX file, weights included.

    Args:
        program: What to write.
        inputs: Its example inputs; axis 0 is called ``batch`` in the file.
        outputs: Names for the outputs, in order.
        path: The file.

    Raises:
        ExportError: If the exporter fails.
    """
    try:
        with quiet("onnxscript"):
            written = torch.onnx.export(
                program,
                input_names=list(inputs),
                output_names=outputs,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps whatever went wrong in classes of its own
        reason = first_line(error.__cause__ or error)
        raise ExportError(f"{path.name}: not possible in ONNX: {reason}") from error
    written.save(path, external_data=False)
    _name_axes(path)


def _name_axes(path: Path) -> None:
    """Calls open axes by what they are; torch calls them by numbered symbols."""
    import onnx

    model = onnx.load(path)
    images = [node for node in model.graph.input if node.name == "images"]
    first = (images or list(model.graph.input))[0].type.tensor_type.shape.dim
    names = {first[0].dim_param: "batch"}
    if images:
        names |= {first[2].dim_param: "height", first[3].dim_param: "width"}
    names.pop("", None)
    # shapes in between come from before the optimiser moved things; readers infer their own
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
    onnx.save(model, path)
