"""The parts of a thinking model that become graphs: one for each stage, and the decode head.

Names join them: what a graph takes, an earlier one gives. A graph that takes ``images`` besides
reads their size alone, where it is for any size.
"""

from collections.abc import Sequence
from itertools import count, takewhile

import torch
from mmseg.models import EncoderDecoder
from torch import Tensor, nn

from ..errors import ExportError
from ..models.backbones import ThinkingBackbone
from ..models.gates import Gate
from ..models.segmentors import ThinkingEncoderDecoder
from ..thinking import StageOutput
from .gating import last_stage, measure

Size = Sequence[int]


class Graph(nn.Module):
    """A function from named tensors to named tensors.

    Args:
        inputs: Names of what it takes.
        size: (H, W) of the images in pixels; None for any.
    """

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

    The first takes ``images`` and gives ``embedding``, at the width of the last stage; stage i > 0
    takes that and the ``tokens_{i-1}`` of the stage before. Each gives ``tokens_{i}``,
    ``features_0`` and so on, with an image-level head ``logits``, and ``entropy`` with a gate.

    Args:
        backbone: Whose stage it is.
        stage: Index of the stage, from 0.
        width: Channels of the embedding that the stage reads.
        last: Index of the last stage that is exported.
        gate: The gate that reads the stage's output; None if there is none.
        size: As in :class:`Graph`.
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
        recycled = f"tokens_{stage - 1}"
        super().__init__(("embedding", recycled) if stage else ("images",), size)
        self.recycled = recycled
        self.backbone = backbone
        self.stage = stage
        self.width = width
        self.last = last
        self.gate = gate

    def forward(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Runs the stage on n images.

        Args:
            tensors: ``images`` (n, 3, H, W), or ``embedding`` (n, ..., D) and recycled tokens.
        """
        found = {}
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
            found["entropy"] = measure(self.gate, output)  # (n,)
        return found


class DecodeGraph(Graph):
    """Neck and decode head: ``features_0`` and so on to ``seg_logits`` (n, K, H, W).

    With a gate it gives ``entropy`` (n,) as well.

    Args:
        model: A segmentor with a thinking backbone.
        features: How many maps the backbone gives.
        gate: The gate that reads pixels; None if there is none.
        size: As in :class:`Graph`.
    """

    def __init__(self, model: EncoderDecoder, features: int, gate: Gate | None, size: Size | None):
        super().__init__([f"features_{i}" for i in range(features)], size)
        self.neck = model.neck if model.with_neck else None
        self.decode_head = model.decode_head
        self.test_cfg = model.test_cfg
        self.gate = gate
        self.num_stages = model.backbone.num_stages
        # the plain segmentor has its logits resized to the image, padding or not
        pads = isinstance(model, ThinkingEncoderDecoder)
        self.padded_size = model.backbone.padded_size if pads else tuple

    def forward(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Decodes features of n images.

        Args:
            tensors: ``features_0`` (n, C, h, w) and so on.
        """
        features = _features(tensors)
        height, width = self.size_of(tensors)
        padded = tuple(self.padded_size((height, width)))
        # heads look at the first only; one for each image would make their number a constant
        metas = [dict(img_shape=padded, pad_shape=padded)]
        maps = features if self.neck is None else self.neck(features)
        logits = self.decode_head.predict(maps, metas, self.test_cfg)
        found = {"seg_logits": logits[..., :height, :width]}
        if self.gate is not None:
            output = StageOutput(
                stage=0,
                num_stages=self.num_stages,
                tokens=features[0],
                features=features,
                logits=None,
                decode=lambda _: logits,
            )
            found["entropy"] = measure(self.gate, output)
        return found


class FixedStageGraph(Graph):
    """Everything up to a stage where all images stop, in one: ``images`` to what they are.

    It gives ``logits`` with an image-level head, and ``seg_logits`` (n, K, H, W) with a decode
    head, else ``features_0`` and so on.

    Args:
        stages: The graphs of the stages, the first to the one where images stop.
        decode: The graph of the decode head, or None.
        size: As in :class:`Graph`.
    """

    def __init__(self, stages: Sequence[StageGraph], decode: DecodeGraph | None, size: Size | None):
        super().__init__(["images"], size)
        self.stages = nn.ModuleList(stages)
        self.decode = decode

    def forward(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Runs n images.

        Args:
            tensors: ``images`` (n, 3, H, W).
        """
        for stage in self.stages:
            tensors = tensors | stage(tensors)
        said = {"logits": tensors["logits"]} if "logits" in tensors else {}
        if self.decode is None:
            return said | {f"features_{i}": x for i, x in enumerate(_features(tensors))}
        return said | {"seg_logits": self.decode(tensors)["seg_logits"]}


def _features(tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
    names = takewhile(tensors.__contains__, (f"features_{i}" for i in count()))
    return tuple(tensors[name] for name in names)


@torch.no_grad()
def build_graphs(
    model: nn.Module, images: Tensor, stage: int | None = None, any_size: bool = False
) -> dict[str, Graph]:
    """Cuts a model into graphs.

    Args:
        model: A thinking segmentor, classifier or backbone.
        images: (n, 3, H, W) of the size that the graphs are for.
        stage: Index of a stage where all images stop; then there is a single graph.
        any_size: Whether they shall take other sizes than that of ``images``.

    Returns:
        Graphs by name: ``stage0`` and so on, with a decode head ``decode``, or just ``model``.
    """
    backbone = getattr(model, "backbone", model)
    size = None if any_size else images.shape[-2:]
    gates = [None, None]  # one that reads a stage's output, one that reads pixels
    if stage is None:
        gates[backbone.gate.needs_decode_head] = backbone.gate
    last = last_stage(backbone) if stage is None else stage
    embeddings = [backbone.embed(images[:1], i) for i in range(last + 1)]
    widths = [x.shape[-1] for x in embeddings]
    stages = [StageGraph(backbone, i, d, last, gates[0], size) for i, d in enumerate(widths)]
    output = backbone.run_stage(0, embeddings[0], None, images.shape[-2:])
    if any(isinstance(feature, tuple) for feature in output.features):
        raise ExportError("maps with class tokens (output_cls_token=True) cannot be exported")
    decode = None
    if isinstance(model, EncoderDecoder):
        decode = DecodeGraph(model, len(output.features), gates[1], size)
    if stage is not None:
        graphs = {"model": FixedStageGraph(stages, decode, size)}
    else:
        graphs = {f"stage{i}": graph for i, graph in enumerate(stages)}
        if decode is not None:
            graphs["decode"] = decode
    return {name: graph.eval().requires_grad_(False) for name, graph in graphs.items()}
