#!/usr/bin/env bash
# miseval's Hausdorff distance between an object and the same object 20 pixels lower is 0.
#
# Setting: a square of 4 x 4 pixels in a mask of 32 x 32; the prediction has it 20 rows lower, then 20 columns further
# right. evaluate(metric="HD") and evaluate(metric="AHD") of miseval, and the distance of the two sets of pixels by
# scipy's directed_hausdorff.
#
# Guess before running: 20 for HD both times, as scipy; less for AHD, which is called the average Hausdorff distance.
#
# What happens (miseval 1.3.0): miseval/hausdorff.py gives the two masks to hausdorff.hausdorff_distance (hausdorff
# 0.2.6), which takes each row of a matrix for the coordinates of a point. So the rows of the masks are compared as
# 32-dimensional points: their order does not matter, and their distance is the root of how many columns differ.
# The metric called AHD returns the largest distance, which is what HD should be. There is no message.
#
# Date: 2026-11-29, Python 3.11. Guess wrong for both metrics. Output seen: SEEN below.
#
# For users: take the metric "AHD" for the Hausdorff distance (between the borders, in pixels), or scipy or
# torchmetrics; do not use "HD".
#
# Needs Python 3.11 (PYTHON names another), pip, and 1 GB of disk while it runs.
# Exit status: 0 as seen then, 1 the behaviour changed, 2 it could not be set up or run.
set -euo pipefail

PACKAGES=(miseval==1.3.0 hausdorff==0.2.6 scipy==1.17.1 numpy==2.4.6)
SEEN=$(cat <<'END'
20 rows lower: miseval HD 0.000, AHD 20.000; scipy 20.000
20 columns further right: miseval HD 2.000, AHD 20.000; scipy 20.000
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

import numpy as np
from miseval import evaluate
from scipy.spatial.distance import directed_hausdorff


def square(row, column):
    mask = np.zeros((32, 32), np.uint8)
    mask[row:row + 4, column:column + 4] = 1
    return mask


truth = square(4, 4)
for name, moved in (("20 rows lower", square(24, 4)), ("20 columns further right", square(4, 24))):
    sets = np.argwhere(truth), np.argwhere(moved)
    distance = max(directed_hausdorff(*sets)[0], directed_hausdorff(*sets[::-1])[0])
    values = ", ".join(f"{metric} {evaluate(truth, moved, metric=metric):.3f}" for metric in ("HD", "AHD"))
    print(f"{name}: miseval {values}; scipy {distance:.3f}")
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("miseval", "hausdorff", "scipy", "numpy"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: miseval compares the rows of masks where it should compare places of pixels"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-29 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-29"
