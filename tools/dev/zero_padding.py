"""Measures what zero-padded channels do to heads that begin with a norm over channels.

Trains the quickstart's model with SETR's head, whose first layer is such a LayerNorm: on
zero-padded features, and behind a 1 x 1 convolution that fills all channels. For each it prints the
mIoU of every thinking stage, and what the LayerNorm sees and makes of each stage's features.
"""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from tvit_seg import FixedGate
from tvit_seg.engine import ThinkingRunner

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py"


@MODELS.register_module()
class Projection(nn.Conv2d):
    """A neck: each stage goes through the columns of the weight that belong to its channels."""

    def forward(self, features: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(map(super().forward, features))


def build(neck: bool, args: argparse.Namespace) -> ThinkingRunner:
    """The quickstart with SETR's head."""
    cfg = Config.fromfile(QUICKSTART)
    width, classes = cfg.model.decode_head.in_channels, cfg.num_classes
    cfg.model.decode_head = dict(
        type="SETRUPHead",
        in_channels=width,
        channels=width,
        num_classes=classes,
        num_convs=1,
        up_scale=2,
        kernel_size=1,
        norm_cfg=dict(type="GN", num_groups=32),
        dropout_ratio=0.0,
        loss_decode=cfg.model.decode_head.loss_decode,
    )
    if neck:
        cfg.model.neck = dict(
            type="Projection", in_channels=width, out_channels=width, kernel_size=1
        )
    for split in ("train", "val", "test"):
        cfg[f"{split}_dataloader"].dataset.data_root = args.data
    cfg.train_cfg.update(max_iters=args.iters, val_interval=args.iters)
    for scheduler in cfg.param_scheduler:
        for key in ("begin", "end"):
            scheduler[key] = scheduler[key] * args.iters // cfg.max_iters
    name = "projected" if neck else "padded"
    cfg.work_dir, cfg.experiment_name = f"{args.work_dir}/{name}", f"{name}-{args.seed}"
    cfg.randomness = dict(seed=args.seed)
    return ThinkingRunner.from_cfg(cfg)


@torch.no_grad()
def statistics(model: torch.nn.Module, images: torch.Tensor) -> list[str]:
    """What the head's LayerNorm gets and gives, one line for each stage."""
    model.eval()
    norm, lines = model.decode_head.norm, []
    for output, width in zip(
        model.backbone.forward_stages(images), model.backbone.stage_dims, strict=True
    ):
        x = model._neck(output.features)[0].flatten(2).transpose(1, 2)  # (n, h w, C)
        y = torch.nn.functional.layer_norm(x, norm.normalized_shape, eps=norm.eps)
        width = x.shape[-1] if model.with_neck else width
        lines.append(
            f"stage {output.stage}: {width} of {x.shape[-1]} channels in use, input std "
            f"{x[..., :width].std():.3f}; normalised std {y[..., :width].std():.3f} in those"
            + (f", mean {y[..., width:].mean():+.3f} in the rest" if width < x.shape[-1] else "")
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="data/scenes", help="folder of tools/make_scenes.py")
    parser.add_argument("--iters", type=int, default=700)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work-dir", default="work_dirs/zero_padding")
    args = parser.parse_args()
    init_default_scope("mmseg")
    for neck in (False, True):
        runner = build(neck, args)
        runner.train()
        batch = runner.model.data_preprocessor(next(iter(runner.val_dataloader)), False)
        print("projected" if neck else "zero-padded")
        print("\n".join(statistics(runner.model, batch["inputs"])))
        for stage in range(runner.model.num_stages):
            runner.model.backbone.set_gate(FixedGate(stage), has_decode_head=True)
            metrics = runner.val_loop.run()
            print(f"stage {stage}: mIoU {metrics['mIoU']:.2f}", flush=True)


if __name__ == "__main__":
    main()
