"""The parts of a thinking model that become graphs: one for each stage, and the decode head.

Graphs are connected by tensor names: an earlier graph outputs what a later one takes. A later graph
for any size may also take ``images``, of which it reads only the size.
"""

import copy
from collections.abc import Sequence
from itertools import count, takewhile
from typing import Any

import torch
from mmseg.models import EncoderDecoder
from torch import Tensor, nn

from ..errors import ExportError
from ..models.backbones import ThinkingBackbone
from ..models.decode_heads import Nested, StageDecoder
from ..models.gates import FixedGate, Gate, ThresholdGate
from ..models.layers import NestedLayerNorm, NestedLinear
from ..models.segmentors import ThinkingEncoderDecoder
from ..thinking import StageOutput
from ..utils.text import first_line

Size = Sequence[int]


class Graph(nn.Module):
    """A function from named tensors to named tensors, for images of ``size`` (H, W) or any."""

    def __init__(self, inputs: Sequence[str], size: Size | None):
        super().__init__()
        self.size = None if size is None else tuple(size)
        sized = "images" in inputs or size is not None
        self.inputs = tuple(inputs) if sized else (*inputs, "images")

    def size_of(self, tensors: dict[str, Tensor]) -> Size:
        """(H, W) of the images in pixels."""
        return self.size or tensors["images"].shape[-2:]


class StageGraph(Graph):
    """One thinking stage.

    Stage 0 takes ``images`` and outputs ``embedding``, at the width of the last exported stage;
    stage i > 0 takes ``embedding`` and ``tokens_{i-1}``. Each outputs ``tokens_{i}``,
    ``features_0`` and so on; with an image-level head also ``logits``, and with a gate that reads
    no pixels ``entropy``. ``width`` is the number of embedding channels that the stage reads.
    """

    def __init__(
        self,
        backbone: ThinkingBackbone,
        stage: int,
        width: int,
        last: int,
        gate: Gate | None,
        size: Size | None,
    ):
        self.recycled = f"tokens_{stage - 1}"
        super().__init__(("embedding", self.recycled) if stage else ("images",), size)
        self.backbone, self.gate = backbone, gate
        self.stage, self.width, self.last = stage, width, last

    def forward(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Any] = {}
        if self.stage == 0:
            found["embedding"] = self.backbone.embed(tensors["images"], self.last)
        embedding = (found or tensors)["embedding"][..., : self.width]
        output = self.backbone.run_stage(
            self.stage, embedding, tensors.get(self.recycled), self.size_of(tensors)
        )
        found[f"tokens_{self.stage}"] = output.tokens
        found |= {f"features_{i}": x for i, x in enumerate(output.features)}
        if output.logits is not None:
            found["logits"] = output.logits
        if self.gate is not None:
            found["entropy"] = measure_entropy(self.gate, output)  # (n,)
        return found


class DecodeGraph(Graph):
    """Neck and decode head: ``features_0`` and so on to ``seg_logits`` (n, K, H, W).

    With a gate that reads pixels it outputs ``entropy`` (n,) as well. A nested head is that of the
    stage; of any other one graph serves all stages.
    """

    def __init__(
        self,
        model: EncoderDecoder,
        stage: int,
        features: int,
        gate: Gate | None,
        size: Size | None,
    ):
        super().__init__([f"features_{i}" for i in range(features)], size)
        self.stage = stage
        self.decoder = StageDecoder(model, stage)
        self.test_cfg = model.test_cfg
        self.gate = gate
        self.num_stages = model.backbone.num_stages
        # mmseg's segmentor resizes its logits to the image, padded or not
        pads = isinstance(model, ThinkingEncoderDecoder)
        self.padded_size = model.backbone.padded_size if pads else tuple

    def forward(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        features = _features(tensors)
        height, width = self.size_of(tensors)
        padded = tuple(self.padded_size((height, width)))
        coarse = self.decoder(features, padded, self.test_cfg)
        logits = self.decoder.upsample(coarse, padded)
        found = {"seg_logits": logits[..., :height, :width]}
        if self.gate is not None:
            known = dict(tokens=features[0], features=features, logits=None)
            known |= dict(coarse_logits=coarse, seg_logits=logits)
            output = StageOutput(stage=self.stage, num_stages=self.num_stages, **known)
            found["entropy"] = measure_entropy(self.gate, output)
        return found


class FixedStageGraph(Graph):
    """All stages up to a fixed exit stage, in one graph that takes ``images``.

    It outputs ``logits`` with an image-level head, and ``seg_logits`` (n, K, H, W) with a decode
    head, else ``features_0`` and so on.
    """

    def __init__(self, stages: Sequence[StageGraph], decode: DecodeGraph | None, size: Size | None):
        super().__init__(["images"], size)
        self.stages = nn.ModuleList(stages)
        self.decode = decode

    def forward(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        for stage in self.stages:
            tensors = tensors | stage(tensors)
        found = {"logits": tensors["logits"]} if "logits" in tensors else {}
        if self.decode is None:
            return found | {f"features_{i}": x for i, x in enumerate(_features(tensors))}
        return found | {"seg_logits": self.decode(tensors)["seg_logits"]}


def _features(tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
    names = takewhile(tensors.__contains__, (f"features_{i}" for i in count()))
    return tuple(tensors[name] for name in names)


@torch.no_grad()
def build_graphs(
    model: nn.Module, images: Tensor, stage: int | None = None, any_size: bool = False
) -> dict[str, Graph]:
    """Split a model into graphs: ``stage0`` and so on, and ``decode`` if it has a decode head.

    A nested decode head is cut to ``decode0`` behind ``stage0`` and so on; graphs are in the order
    in which they run.

    Args:
        model: A thinking segmentor, classifier or backbone.
        images: (n, 3, H, W), of the graphs' image size.
        stage: Stage after which all images exit, for a single graph ``model`` instead.
        any_size: Whether the graphs accept other sizes than that of ``images``.

    Raises:
        ExportError: If maps come with class tokens.
    """
    backbone = getattr(model, "backbone", model)
    size = None if any_size else images.shape[-2:]
    gates: list[Any] = [None, None]  # reading a stage's output, reading pixels
    last = stage
    if stage is None:
        gates[backbone.gate.needs_decode_head] = backbone.gate
        fixed = isinstance(backbone.gate, FixedGate)
        last = (backbone.gate.stage if fixed else -1) % backbone.num_stages
    embeddings = [backbone.embed(images[:1], i) for i in range(last + 1)]
    widths = [x.shape[-1] for x in embeddings]
    stages = [StageGraph(backbone, i, d, last, gates[0], size) for i, d in enumerate(widths)]
    output = backbone.run_stage(0, embeddings[0], None, images.shape[-2:])
    if any(isinstance(feature, tuple) for feature in output.features):
        raise ExportError("maps with class tokens (output_cls_token=True) cannot be exported")
    segments = isinstance(model, EncoderDecoder)
    options = (len(output.features), gates[1], size)
    if stage is not None:
        decode = DecodeGraph(model, stage, *options) if segments else None
        graphs: dict[str, Any] = {"model": FixedStageGraph(stages, decode, size)}
    else:
        parts = [getattr(model, name, None) for name in ("neck", "decode_head")]
        nested = any(isinstance(part, Nested) for part in parts)
        graphs = {}
        for i, graph in enumerate(stages):
            graphs[f"stage{i}"] = graph
            if nested:
                graphs[f"decode{i}"] = DecodeGraph(model, i, *options)
        if segments and not nested:
            graphs["decode"] = DecodeGraph(model, last, *options)
    return {name: graph.eval().requires_grad_(False) for name, graph in graphs.items()}


@torch.no_grad()
def run_chain(graphs: dict[str, Graph], images: Tensor) -> dict[str, Tensor]:
    """Run graphs one after the other; return all tensors by name."""
    tensors = {"images": images}
    for graph in graphs.values():
        tensors |= graph({key: tensors[key] for key in graph.inputs})
    return tensors


@torch.no_grad()
def narrow(graph: Graph, tensors: dict[str, Tensor]) -> Graph:
    """Copy a graph with nested layers cut to the leading slices that these inputs use.

    This makes files smaller, and weights constants for later steps (quantisation, layouts).
    """
    graph = copy.deepcopy(graph)
    used: dict[nn.Module, tuple[int, int]] = {}

    def note(module: nn.Module, args: tuple, output: Tensor) -> None:
        widths = (args[0].shape[-1], output.shape[-1])
        used[module] = tuple(map(max, widths, used.get(module, widths)))

    nested = [part for part in graph.modules() if isinstance(part, (NestedLinear, NestedLayerNorm))]
    hooks = [part.register_forward_hook(note) for part in nested]
    graph(tensors)
    for hook in hooks:
        hook.remove()
    for part, widths in used.items():
        part.cut(*widths)
    return graph.requires_grad_(False)


def check_gate(gate: Gate) -> None:
    """Raise ExportError unless the gate's decision is a comparison with a threshold."""
    threshold = isinstance(gate, ThresholdGate) and type(gate).stop is ThresholdGate.stop
    if type(gate) is not FixedGate and not threshold:
        raise ExportError(
            f"{type(gate).__name__} decides in Python and cannot be exported. FixedGate can, and "
            "a ThresholdGate that overrides only entropy(); a single stage (--stage) needs no gate"
        )


def measure_entropy(gate: Gate, output: StageOutput) -> Tensor:
    """Measure (n,) entropies; raise ExportError if that needs more than the graph's tensors."""
    try:
        return gate.entropy(output)
    except Exception as error:  # tracing's exception classes are not public
        raise ExportError(
            f"{type(gate).__name__} cannot be exported: its entropy() reads something that is not "
            "in the graph, or computes in Python (if, float(), .item(), .numpy()): use tensor "
            f"operations, or export a single stage (--stage) ({first_line(error)})"
        ) from error
