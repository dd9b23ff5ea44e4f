"""``torch.export`` of a graph for any number of images, and on request for any size."""

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from ..errors import ExportError
from ..utils.text import first_line
from .graphs import Graph
from .quiet import quiet

Tensors = dict[str, Tensor]
_MOST = 2**20
"""Images in a batch."""


def trace(
    name: str, graph: Graph, example: Tensors, other: Tensors | None, divisor: int
) -> ExportedProgram:
    """Exports a graph; the number of images is always left open.

    Args:
        name: Of the graph, for messages.
        graph: In evaluation mode.
        example: Inputs for at least two images: exporters take one for a constant.
        other: Inputs for images of another size, if the graph is for any; what differs stays open.
        divisor: What heights and widths are multiples of, in pixels, where they stay open.

    Raises:
        ExportError: If the exporter fails, or what should stay open became a constant.
    """
    batch = Dim("batch", max=_MOST)  # torch 2.6 takes no bound for a bound that is excluded
    shapes = {key: {0: batch} for key in graph.inputs}
    for key in graph.inputs if other is not None else ():
        if key == "images":
            shapes[key] |= {2: divisor * Dim("rows"), 3: divisor * Dim("columns")}
            continue
        pairs = zip(example[key].shape, other[key].shape, strict=True)
        shapes[key] |= {axis: Dim.AUTO for axis, (a, b) in enumerate(pairs) if axis and a != b}
    inputs = {key: example[key] for key in graph.inputs}
    try:
        with torch.no_grad(), quiet("torch"):
            return torch.export.export(
                graph,
                (inputs,),
                dynamic_shapes={"tensors": shapes},
                strict=False,
            )
    except ExportError:
        raise
    except Exception as error:  # the exporter has a class for each cause, none of them public
        raise ExportError(_explain(name, error, len(next(iter(inputs.values()))))) from error


def _explain(name: str, error: Exception, count: int) -> str:
    message = str(error)
    if "Constraints violated" in message:
        constants = message.partition("Constraints violated (")[2].partition(")")[0].split(", ")
        if "batch" in constants:
            return frozen_batch(name, count)
        return (
            f"{name}: the exporter froze {', '.join(constants)}: something in it depends on the "
            "image size, so export for one (--size)"
        )
    return f"{name} cannot be exported: {first_line(error)}"


def frozen_batch(name: str, count: int) -> str:
    """The message for a graph that takes just as many images as its example had."""
    return (
        f"{name}: the exporter froze the batch at {count} images. A layer uses the number of "
        "images as a Python number, such as len(x), int(x.shape[0]) or a comparison with it: take "
        "x.shape[0] as it is, or -1 in a reshape"
    )
