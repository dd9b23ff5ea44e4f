#!/usr/bin/env bash
# The mean GeneralizedDiceScore of two images is 1.0000, 0.9998 or 0.5013, depending on batches and their order.
#
# Setting: an image of 64 x 64 pixels, right but for one pixel, which is given a class that the image lacks, and
# a second image, predicted without an error. The metric's mean is taken over both one by one, and in a batch in
# either order.
#
# Guess before running: the same number each time, as the metric scores each sample, then takes the mean (written
# down for MeanIoU of the same package, of which it is true; this metric was tried beside it).
#
# What happens (torchmetrics 1.9.0): a class that an image lacks has weight 1/0. _generalized_dice_update in
# torchmetrics/functional/segmentation/generalized_dice.py replaces it by the largest finite weight of the batch,
# laid out by class, while the weights are laid out by sample: the absent class gets the largest weight of
# another class, or 0. With 0, pixels given to an absent class cost next to nothing; with that of an object of
# one pixel, a single pixel outweighs the image. There is no message.
#
# Date: 2026-11-29, Python 3.11, CPU. Guess wrong. Output seen: SEEN below.
#
# For users: do not compare runs by this metric. With weight_type="linear" no weight is infinite, and DiceScore
# has none.
#
# Needs Python 3.11 (PYTHON names another), pip, and 7 GB of disk while it runs.
# Exit status: 0 as seen then, 1 the behaviour changed, 2 it could not be set up or run.
set -euo pipefail

PACKAGES=(torch==2.15.0 numpy==2.4.6 torchmetrics==1.9.0)
SEEN=$(cat <<'END'
the image alone: 1.0000
both, one by one: 1.0000
both in a batch: 0.9998
both in a batch, in the other order: 0.5013
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

import torch
from torchmetrics.segmentation import GeneralizedDiceScore

first = torch.zeros(64, 64, dtype=torch.long)
first[16:48, 16:48] = 1
guess = first.clone()
guess[0, 0] = 2  # one wrong pixel, of a class that is not in this image
second = torch.zeros(64, 64, dtype=torch.long)
second[10, 10] = 2  # predicted without an error
one, other = (guess, first), (second, second)

for name, batches in (
    ("the image alone", [[one]]),
    ("both, one by one", [[one], [other]]),
    ("both in a batch", [[one, other]]),
    ("both in a batch, in the other order", [[other, one]]),
):
    metric = GeneralizedDiceScore(num_classes=3, input_format="index")
    for batch in batches:
        metric.update(*map(torch.stack, zip(*batch)))
    print(f"{name}: {metric.compute():.4f}")
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("torch", "torchmetrics"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: the generalised Dice score of an image depends on its place in a batch"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-29 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-29"
