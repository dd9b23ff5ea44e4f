#!/usr/bin/env bash
# DiceLoss of a model with one output channel trains the background as the foreground.
#
# Setting: a label of 16 x 16 pixels with a square of class 1, and one channel of logits, as of a head
# with out_channels=1. They are right (9 in the square, -9 outside), then inverted; DiceLoss is called
# as the decode heads call their losses. For comparison, CrossEntropyLoss(use_sigmoid=True).
#
# Guess before running (source read first): right costs 1, inverted 0, where any user expects the
# opposite; cross entropy has it the usual way.
#
# What happens (onedl-mmsegmentation 1.4.2): _expand_onehot_labels_dice in
# mmseg/models/losses/dice_loss.py makes one column per channel, from class 0 on. With one channel
# the only column is that of class 0, so that the target is 1 where the label is 0. Everywhere else
# in mmsegmentation the single channel is the probability of class 1. There is no message.
#
# Date: 2026-11-28, Python 3.11, CPU. Guess right. Output seen: SEEN below.
#
# For users: with out_channels=1 use CrossEntropyLoss(use_sigmoid=True), or two output channels. Beside
# another loss, Dice works against it.
#
# Needs Python 3.11 (PYTHON names another), pip, and 7 GB of disk while it runs.
# Exit status: 0 as seen then, 1 the behaviour changed, 2 it could not be set up or run.
set -euo pipefail

PACKAGES=(
    torch==2.15.0 torchvision==0.29.2 onedl-mmengine==0.10.12 onedl-mmcv==2.3.6
    onedl-mmsegmentation==1.4.2 opencv-python==5.0.0.93 numpy==2.4.6 setuptools==84.2.1
    ftfy==6.3.1 regex==2026.11.15
)
SEEN=$(cat <<'END'
DiceLoss: right 1.000, inverted 0.000
CrossEntropyLoss: right 0.000, inverted 9.000
END
)

TEMPORARY=$(mktemp -d)
trap 'rm -rf "$TEMPORARY"' EXIT
cd "$TEMPORARY"
"${PYTHON:-python3.11}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check "${PACKAGES[@]}" || exit 2

cat >program.py <<'END'
import warnings

warnings.filterwarnings("ignore")

import mmseg.models  # noqa: F401
import torch
from mmseg.registry import MODELS

torch.set_num_threads(1)
label = torch.zeros(1, 16, 16, dtype=torch.long)
label[:, 4:12, 4:12] = 1
right = (18.0 * label - 9)[:, None]  # one channel: the foreground

for name, config in (("DiceLoss", dict()), ("CrossEntropyLoss", dict(use_sigmoid=True))):
    loss = MODELS.build(dict(type=name, **config))
    # as every decode head of mmsegmentation calls it
    found = [loss(x, label, weight=None, ignore_index=255).item() for x in (right, -right)]
    print(f"{name}: right {found[0]:.3f}, inverted {found[1]:.3f}")
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("torch", "onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation", "numpy"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: one-channel DiceLoss is lowest for the inverted mask"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-28 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-28"
