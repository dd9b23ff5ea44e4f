"""Backbones: one stage, both stages, early exits, a training step."""

from collections.abc import Callable, Iterator
from functools import partial

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvit_seg.models.backbones import ThinkingBackbone, ThinkingViT
from tvit_seg.models.gates import EntropyGate, FixedGate
from tvit_seg.utils.timing import Contestants

from .models import HEADS, TIMM_MODELS, Setting, inference
from .rows import Ratio, Row, shape


def backbone_rows(setting: Setting) -> Iterator[Row]:
    """Rows 1 to 5."""
    small, large = (setting.size or size for size in (224, 512))
    for size, batch in ((small, 8), (large, 1)):
        for stage, other in enumerate(TIMM_MODELS):
            name = f"stage {stage} / {other.removesuffix('_patch16_224')}"
            yield Row(
                1,
                partial(vit_stage, setting, size, batch, stage),
                [Ratio(f"{name}, {shape(size, batch)}", lambda t: t["stage"] / t["timm"], 1.10)],
            )
        name = f"full width / timm vit_small_patch16_dinov3, {shape(size, batch)}"
        yield Row(
            1,
            partial(dinov3, setting, size, batch),
            [Ratio(name, lambda t: t["stage"] / t["timm"], 1.10)],
        )
    name = f"both stages / mmseg ViT, {shape(large, 1)}"
    yield Row(
        2,
        partial(both_stages, setting, large, 1),
        [Ratio(name, lambda t: t["both stages"] / t["mmseg"], 0.90)],
    )
    name = f"all stop / all think, {shape(large, 1)}"
    yield Row(
        3,
        partial(vit_exits, setting, large, 1),
        [Ratio(name, lambda t: t["all stop"] / t["all think"], 0.30)],
    )
    name = f"half stop / stage 0 + half stage 1, {shape(small, 8)}"
    yield Row(
        4,
        partial(vit_exits, setting, small, 8, half=True),
        # all stop + (all think - all stop) / 2
        [Ratio(name, lambda t: 2 * t["half stop"] / (t["all stop"] + t["all think"]), 1.10)],
    )
    name = f"training step / timm tiny + timm small, {shape(small, 8)}"
    yield Row(
        5,
        partial(training_step, setting, small, 8),
        [Ratio(name, lambda t: t["ours"] / (t["timm tiny"] + t["timm small"]), 1.10)],
    )


def vit_stage(setting: Setting, size: int, batch: int, stage: int) -> Contestants:
    """A stage against timm's ViT of its width."""
    ours, theirs = setting.thinking_vit(size, 1000), setting.timm_vit(stage, size)
    return stage_alone(ours, theirs, setting.images(batch, size), stage)


def dinov3(setting: Setting, size: int, batch: int) -> Contestants:
    """Registers and rotary positions: one stage of all heads against timm's DINOv3."""
    ours = ThinkingViT(arch="dinov3_small", num_layers=setting.layers, thinking_stages=(6,))
    theirs = timm.create_model("vit_small_patch16_dinov3", num_classes=0, depth=setting.layers)
    pair = setting.prepare(ours), setting.prepare(theirs)
    return stage_alone(*pair, setting.images(batch, size), 0)


def stage_alone(
    ours: ThinkingBackbone, theirs: nn.Module, images: Tensor, stage: int
) -> Contestants:
    """A stage given the one before, against timm: each from images to norm and head."""
    with torch.inference_mode():
        embedding = tokens = None
        for earlier in range(stage):
            embedding = ours.embed(images, earlier, embedding)
            tokens = ours.run_stage(earlier, embedding, tokens, images.shape[-2:]).tokens

    def run_stage() -> object:
        new = ours.embed(images, stage, embedding)
        return ours.run_stage(stage, new, tokens, images.shape[-2:])

    return {
        "stage": inference(run_stage),
        "timm": inference(partial(theirs, images)),
    }


def both_stages(setting: Setting, size: int, batch: int) -> Contestants:
    """Backbones without a head; ours always thinks to the end.

    At 512 pixels mmseg writes attention maps of 25 MB. Where the C allocator happens to hand them
    back to the system each time, which varies from process to process, mmseg takes 1.4 x as long.
    """
    ours, theirs = setting.thinking_vit(size), setting.mmseg_vit(size)
    images = setting.images(batch, size)
    return {
        "both stages": inference(partial(ours.think, images, FixedGate(-1))),
        "mmseg": inference(partial(theirs, images)),
    }


def vit_exits(setting: Setting, size: int, batch: int, half: bool = False) -> Contestants:
    """Exits of our ViT."""
    return early_exit(setting.thinking_vit(size, 1000), setting.images(batch, size), half)


def early_exit(ours: ThinkingBackbone, images: Tensor, half: bool = False) -> Contestants:
    """The exit loop with an entropy gate that all images pass, none, or half of them."""
    gates = exit_gates(ours.think, images, half)
    return {name: inference(partial(ours.think, images, gate)) for name, gate in gates.items()}


def exit_gates(think: Callable, images: Tensor, half: bool) -> dict[str, EntropyGate]:
    """Gates that stop all images, none, or half of them after stage 0.

    Raises:
        RuntimeError: If they do not.
    """
    thresholds = {"all stop": 1e9, "all think": 0.0}
    with torch.inference_mode():
        if half:
            entropy = think(images, EntropyGate(1e9)).entropy[:, 0]
            # midway between the two in the middle
            thresholds["half stop"] = entropy.quantile(0.5).item()
        gates = {name: EntropyGate(threshold) for name, threshold in thresholds.items()}
        stopping = {"all stop": len(images), "all think": 0, "half stop": len(images) // 2}
        for name, gate in gates.items():
            stopped = (think(images, gate).exit_stage == 0).sum().item()
            if stopped != stopping[name]:
                raise RuntimeError(f"{stopped} of {len(images)} images stop, not {stopping[name]}")
    return gates


def training_step(setting: Setting, size: int, batch: int) -> Contestants:
    """Forward, backward and an AdamW step; ours trains all stages at once."""
    images, labels = setting.images(batch, size), torch.arange(batch, device=setting.device)
    ours = setting.trainable_vit(size, num_classes=1000)
    tiny, small = (setting.trainable_timm_vit(stage, size) for stage in range(len(HEADS)))

    def contestant(model: nn.Module, logits: Callable[[], list[Tensor]]) -> Callable[[], None]:
        setting.prepare(model).train()
        optimizer = torch.optim.AdamW(model.parameters())

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            torch.stack([F.cross_entropy(x, labels) for x in logits()]).mean().backward()
            optimizer.step()

        return step

    return {
        "ours": contestant(ours, lambda: [x.logits for x in ours.forward_stages(images)]),
        "timm tiny": contestant(tiny, lambda: [tiny(images)]),
        "timm small": contestant(small, lambda: [small(images)]),
    }
