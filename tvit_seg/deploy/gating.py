"""Which gates can be exported: those whose decision is a comparison that any host can make."""

from torch import Tensor

from ..errors import ExportError
from ..models.backbones import ThinkingBackbone
from ..models.gates import FixedGate, Gate, ThresholdGate
from ..thinking import StageOutput
from ..utils.text import first_line


def check_gate(gate: Gate) -> None:
    """Raises ExportError if a gate decides in Python, so that no graph can stand for it."""
    fixed = type(gate) is FixedGate
    threshold = isinstance(gate, ThresholdGate) and type(gate).stop is ThresholdGate.stop
    if not fixed and not threshold:
        raise ExportError(
            f"{type(gate).__name__} decides in Python and cannot be exported. EntropyGate, "
            "PixelEntropyGate and FixedGate can, and so can a ThresholdGate of your own that "
            "overrides entropy() alone; or export a single stage (--stage), which needs no gate"
        )


def last_stage(backbone: ThinkingBackbone) -> int:
    """Index of the last stage that the gate can have run."""
    gate = backbone.gate
    if isinstance(gate, FixedGate):
        return gate.stage % backbone.num_stages
    return backbone.num_stages - 1


def measure(gate: Gate, output: StageOutput) -> Tensor:
    """(n,) entropy as the gate measures it, from what there is in a graph.

    Raises:
        ExportError: If the gate reads something else, computes in Python, or measures something
            else than a number for each image.
    """
    name = type(gate).__name__
    try:
        entropy = gate.entropy(output)
    except (AttributeError, TypeError) as error:  # it got None
        raise ExportError(
            f"{name} cannot be exported: it reads something that is not in the "
            f"graph of a stage (tokens, features, logits) or of the decode head ({error})"
        ) from error
    except Exception as error:  # tracing has a class for each cause, none of them public
        raise ExportError(
            f"{name} cannot be exported: its entropy() computes in Python (if, float(), .item(), "
            f".numpy()), of which a graph has nothing: use tensor operations, or export a single "
            f"stage (--stage) ({first_line(error)})"
        ) from error
    if entropy.ndim != 1:
        raise ExportError(
            f"{name} cannot be exported: its entropy() has the shape {tuple(entropy.shape)}, where "
            f"a number for each image is needed, ({len(entropy)},)"
        )
    return entropy


def describe_gate(gate: Gate) -> dict:
    """The gate for a manifest: its ``type``, settings, and whether it ``reads`` pixels."""
    names = ("threshold", "topk", "use_sigmoid", "stage")
    settings = {name: getattr(gate, name) for name in names if hasattr(gate, name)}
    reads = "pixels" if gate.needs_decode_head else "image"
    return {"type": type(gate).__name__, **settings, "reads": reads}
