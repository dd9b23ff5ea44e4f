#!/usr/bin/env bash
# A map that is wrong on every pixel has a mean IoU of 0.9867 in kornia; a right one has 0.0133 in ignite.
#
# Setting: 150 classes, as in ADE20K, of which an image has two, half each. The prediction is right, then the two
# classes are swapped. The mean over the classes by kornia.metrics.mean_iou, ignite's mIoU and torchmetrics.
#
# Guess before running: kornia counts a class that is neither in the label nor in the prediction as 0, as ignite
# does in its mean. A user would expect either to leave it out.
#
# What happens (kornia 0.9.0, pytorch-ignite 0.5.5): kornia adds eps above and below the line, and 0/0 becomes 1.
# ignite adds it below only, and 0/0 becomes 0. torchmetrics leaves such classes out. There is no message.
#
# Date: 2026-11-29, Python 3.11, CPU. Guess wrong for kornia, right for ignite. Output seen: SEEN below.
#
# For users: sum the confusion matrix of a whole dataset first, and average only over classes that occur. Means of
# the three libraries cannot be compared.
#
# Needs Python 3.11 (PYTHON names another), pip, and 7 GB of disk while it runs.
# Exit status: 0 as seen then, 1 the behaviour changed, 2 it could not be set up or run.
set -euo pipefail

PACKAGES=(torch==2.15.0 numpy==2.4.6 kornia==0.9.0 pytorch-ignite==0.5.5 torchmetrics==1.9.0)
SEEN=$(cat <<'END'
right: kornia 1.0000, ignite 0.0133, torchmetrics 1.0000
wrong on each pixel: kornia 0.9867, ignite 0.0000, torchmetrics 0.0000
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

import kornia
import torch
from ignite.engine import Engine
from ignite.metrics import ConfusionMatrix, mIoU
from torchmetrics.segmentation import MeanIoU

CLASSES = 150


def ignite(prediction, label):
    engine = Engine(lambda _, batch: batch)
    mIoU(ConfusionMatrix(num_classes=CLASSES)).attach(engine, "mIoU")
    scores = torch.nn.functional.one_hot(prediction, CLASSES).movedim(-1, 1).float()
    return engine.run([(scores, label)]).metrics["mIoU"]


def torchmetrics(prediction, label):
    metric = MeanIoU(num_classes=CLASSES, input_format="index")
    metric.update(prediction, label)
    return metric.compute().item()


label = torch.zeros(1, 16, 16, dtype=torch.long)
label[:, 8:] = 1
for name, prediction in (("right", label), ("wrong on each pixel", 1 - label)):
    values = dict(
        kornia=kornia.metrics.mean_iou(prediction, label, CLASSES).mean().item(),
        ignite=ignite(prediction, label), torchmetrics=torchmetrics(prediction, label))
    print(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in values.items()))
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("torch", "kornia", "pytorch-ignite", "torchmetrics"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: classes that do not occur count as 1 in kornia's mean IoU, as 0 in ignite's"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-29 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-29"
