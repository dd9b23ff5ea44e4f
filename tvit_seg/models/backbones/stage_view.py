"""One thinking stage as a plain module, for tools that hook or count modules."""

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ...thinking import hand_on
from ...utils.checks import check, check_choice, check_index

if TYPE_CHECKING:
    from .base import ThinkingBackbone


class StageView(nn.Module):
    """Module of one stage whose parts run once per call, at the width of the stage.

    It has the backbone's parts under the backbone's names and shares their parameters and buffers,
    but neither its hooks nor its mode. Earlier stages, whose tokens are recycled, run in a second
    view that is hidden from tools.

    Args:
        backbone: Thinking backbone.
        stage: Index of the stage; negative counts from the end.
        output: ``'features'``, the maps for a decode head; ``'logits'``, the image-level
            prediction; or ``'tokens'``, after the final norm.
    """

    def __init__(self, backbone: "ThinkingBackbone", stage: int = -1, output: str = "features"):
        super().__init__()
        self.stage = check_index("stage", stage, backbone.num_stages)
        pruning = backbone.pruning
        if pruning is not None and pruning.needs_decode_head:
            name = type(pruning).__name__
            first = next((i for i in range(self.stage + 1) if pruning.borrows(i)), None)
            allowed = (
                f"before stage {first}, whose tokens {name} chooses by the decode head, which a "
                "view lacks; with keep_ratio=1 (in evaluation) or set_pruning(None) any stage goes"
            )
            check(first is None, "stage", stage, allowed)
        self.output = check_choice("output", output, ("features", "logits", "tokens"))
        own = share(backbone)
        self._hidden = (own, share(backbone))  # a tuple, so that they are no parts
        for parts in ("_parameters", "_buffers", "_modules"):
            setattr(self, parts, getattr(own, parts))
        self.train(backbone.training)

    def forward(self, images: Tensor) -> Any:
        """Run the stage on images (B, 3, H, W)."""
        own, earlier = self._hidden
        previous = embedding = None
        size = images.shape[-2:]
        for stage in range(self.stage):
            embedding = earlier.embed(images, stage, embedding)
            output = earlier.run_stage(stage, embedding, previous, size)
            previous = hand_on(earlier, output)
        output = own.run_stage(self.stage, own.embed(images, self.stage), previous, size)
        return getattr(output, self.output)

    def train(self, mode: bool = True) -> "StageView":
        """Set the mode of this view alone."""
        self.training = mode
        for hidden in self._hidden:
            hidden.train(mode)
        return self


def share(module: nn.Module) -> nn.Module:
    """Copy a module's structure without its hooks; parameters and buffers stay the same objects."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        memo.update({id(shared): shared for shared in (part._parameters, part._buffers)})
        hooks = (value for name, value in vars(part).items() if "_hooks" in name)
        memo.update({id(found): OrderedDict() for found in hooks if isinstance(found, dict)})
    return copy.deepcopy(module, memo)
