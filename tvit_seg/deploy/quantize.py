"""Graphs with weights of 8 bits, activations quantised as they come."""

import json
import logging
from pathlib import Path

from ..errors import ExportError
from .manifest import write_manifest


def quantize(folder: str | Path, target: str | Path) -> None:
    """Writes a folder of ONNX graphs anew, with matrix products in int8.

    Args:
        folder: From :func:`~tvit_seg.deploy.export`.
        target: Where to write.

    Raises:
        ExportError: If the graphs are not ONNX.
    """
    folder, target = Path(folder), Path(target)
    manifest = json.loads((folder / "manifest.json").read_text())
    if manifest["format"] != "onnx":
        raise ExportError(f"int8 graphs are made of ONNX graphs, not of {manifest['format']}")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target.mkdir(parents=True, exist_ok=True)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # advice to optimise graphs first, which torch has done
    try:
        for name in filter(None, [*manifest["stages"], manifest["decode"]]):
            quantize_dynamic(
                folder / name,
                target / name,
                # onnxruntime has no fast convolution in int8, and patches are a small part
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
    finally:
        logging.disable(level)
    manifest["weights"] = "int8"
    for checked in ("largest_difference", "checked_images"):  # of the graphs in full precision
        del manifest[checked]
    write_manifest(manifest, target)
