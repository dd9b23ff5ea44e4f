#!/usr/bin/env bash
# With seg-metrics an object that the prediction misses altogether has a Hausdorff distance of 0, as a perfect one.
#
# Setting: a square of 8 x 8 pixels in a label of 32 x 32, class 1. Three predictions: the label itself, the square
# 6 columns further right, and nothing. write_metrics with Dice, the Hausdorff distance, its 95th percentile and the
# mean surface distance.
#
# Guess before running: 0, 6 and, for nothing, infinity, NaN or an error, as the distance to an empty set is not
# defined.
#
# What happens (seg-metrics 1.2.8): all distances of the missed object are 0. A message says what precision and recall
# are taken for, none that distances are. The mean distance over images falls if a model predicts nothing where it
# would be wrong by some pixels. torchmetrics 1.9.0 and MONAI 1.6.1 give infinity.
#
# Date: 2026-11-29, Python 3.11. Guess wrong. Output seen: SEEN below.
#
# For users: drop the distances of images where one of the two masks is empty, and report how many there were.
#
# Needs Python 3.11 (PYTHON names another), pip, and 1 GB of disk while it runs.
# Exit status: 0 as seen then, 1 the behaviour changed, 2 it could not be set up or run.
set -euo pipefail

PACKAGES=(seg-metrics==1.2.8 simpleitk==2.5.7 numpy==2.4.6)
SEEN=$(cat <<'END'
the label itself: dice 1.00, hd 0.00, hd95 0.00, msd 0.00
6 columns off: dice 0.25, hd 6.00, hd95 6.00, msd 3.00
nothing: dice 0.00, hd 0.00, hd95 0.00, msd 0.00
END
)

TEMPORARY=$(mktemp -d)
trap 'rm -rf "$TEMPORARY"' EXIT
cd "$TEMPORARY"
"${PYTHON:-python3.11}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check "${PACKAGES[@]}" || exit 2

cat >program.py <<'END'
import logging

import numpy as np
from seg_metrics.seg_metrics import write_metrics

logging.disable(logging.WARNING)

label = np.zeros((32, 32), int)
label[4:12, 4:12] = 1
for name, prediction in (
    ("the label itself", label), ("6 columns off", np.roll(label, 6, axis=1)), ("nothing", np.zeros_like(label))
):
    [found] = write_metrics(
        labels=[1], gdth_img=label, pred_img=prediction, metrics=["dice", "hd", "hd95", "msd"], verbose=False)
    print(f"{name}: " + ", ".join(f"{key} {float(found[key][0]):.2f}" for key in ("dice", "hd", "hd95", "msd")))
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("seg-metrics", "simpleitk", "numpy"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: distances to an empty mask are 0"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-29 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-29"
