#!/usr/bin/env bash
# DiceLoss with ignore_index=255 trains the pixels labelled 255.
#
# Setting: logits of 16 x 16 pixels and two classes, the upper half labelled, the lower half 255.
# On the lower half they start sure of class 1 (logit 4). They take 200 steps of Adam with
# CrossEntropyLoss, then from the same start with DiceLoss(ignore_index=255). Both are called as the
# decode heads call their losses, with ignore_index=255 as well.
#
# Guess before running (sources read first): cross entropy has gradient exactly 0 on the ignored
# half; Dice has one of the same order as on the labelled half, and the probability there falls from
# 0.98 below 0.05. The parameter's name promises no gradient for both.
#
# What happens (onedl-mmsegmentation 1.4.2): in mmseg/models/losses/dice_loss.py the function
# dice_loss takes ignore_index for the number of a channel to leave out. No model has a channel 255,
# so that nothing is left out. _expand_onehot_labels_dice gives a pixel labelled 255 a target
# of zero in each class. Its prediction still counts in the denominator, so that the loss falls when
# each class is denied there. The ignore_index that the head passes to DiceLoss.forward is not used.
#
# Date: 2026-11-28, Python 3.11, CPU. Guess right about the direction and the end; the first
# gradient is smaller than guessed: a fifth of that on the labelled half, as the sigmoid is nearly
# flat at logit 4. Output seen: SEEN below.
#
# For users: with many unlabelled pixels (borders, padding, "void"), DiceLoss teaches that there is
# nothing there, also where another loss beside it leaves these pixels alone. With the default
# use_sigmoid=True, fill the logits of ignored pixels with a large negative number before DiceLoss;
# with softmax, mask the probabilities in a loss of one's own.
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
CrossEntropyLoss: first step, sum of |gradient|: labelled 0.5000, ignored 0.0000
CrossEntropyLoss: class 1 on ignored pixels: logit 4.00 becomes 4.00, sigmoid 0.982 becomes 0.982
DiceLoss: first step, sum of |gradient|: labelled 0.1842, ignored 0.0386
DiceLoss: class 1 on ignored pixels: logit 4.00 becomes -3.46, sigmoid 0.982 becomes 0.030
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
label = torch.full((1, 16, 16), 255)  # the lower half has no label
label[:, :8, :8], label[:, :8, 8:] = 0, 1
ignored = label[0] == 255
start = torch.zeros(1, 2, 16, 16)
start[:, 1, 8:] = 4.0  # there the model is sure of class 1

for name, config in (("CrossEntropyLoss", dict()), ("DiceLoss", dict(ignore_index=255))):
    loss = MODELS.build(dict(type=name, **config))
    logits = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for step in range(200):
        optimizer.zero_grad()
        # as every decode head of mmsegmentation calls it
        loss(logits, label, weight=None, ignore_index=255).backward()
        if step == 0:
            size = logits.grad[0].abs().sum(0)
            print(f"{name}: first step, sum of |gradient|: labelled {size[~ignored].sum():.4f}, "
                  f"ignored {size[ignored].sum():.4f}")
        optimizer.step()
    after = logits.detach()[0, 1][ignored].mean()
    print(f"{name}: class 1 on ignored pixels: logit 4.00 becomes {after:.2f}, "
          f"sigmoid 0.982 becomes {after.sigmoid():.3f}")
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("torch", "onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation", "numpy"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: Dice has a gradient on ignored pixels and unlearns them; cross entropy has none"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-28 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-28"
