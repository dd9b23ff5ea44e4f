#!/usr/bin/env bash
# In pymia a prediction with one pixel too much has a mean absolute error 255 times that of one pixel too few.
#
# Setting: masks of 16 x 16, uint8 with 0 and 1, as SimpleITK and OpenCV read them. The prediction lacks one pixel of
# the label, then has one more. pymia's MeanAbsoluteError, MeanSquaredError and CoefficientOfDetermination.
#
# Guess before running: both errors 1/256 = 0.0039, and the same coefficient of determination.
#
# What happens (pymia 0.3.4): pymia/evaluation/metric/continuous.py subtracts the arrays in their own type, and 0 - 1
# is 255 in uint8. The squared error survives by luck, as 255 * 255 is 1 there. There is no message. A mean absolute
# error of 18 for masks with a tenth of their pixels wrong looks like one of grey values.
#
# Date: 2026-11-29, Python 3.11. Guess wrong for the pixel too much. Output seen: SEEN below.
#
# For users: convert masks to a signed type (label.astype(int)) before pymia's metrics of differences.
#
# Needs Python 3.11 (PYTHON names another), pip, and 1 GB of disk while it runs.
# Exit status: 0 as seen then, 1 the behaviour changed, 2 it could not be set up or run.
set -euo pipefail

PACKAGES=(pymia==0.3.4 numpy==2.4.6)
SEEN=$(cat <<'END'
uint8, one too few: MAE 0.0039, MSE 0.0039, R2 0.9333
uint8, one too many: MAE 0.9961, MSE 0.0039, R2 0.9333
int64, one too few: MAE 0.0039, MSE 0.0039, R2 0.9333
int64, one too many: MAE 0.0039, MSE 0.0039, R2 0.9333
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
from pymia.evaluation.metric import CoefficientOfDetermination, MeanAbsoluteError, MeanSquaredError

label = np.zeros((16, 16), np.uint8)
label[4:8, 4:8] = 1
less, more = label.copy(), label.copy()
less[4, 4], more[0, 0] = 0, 1
for kind in (np.uint8, np.int64):
    for name, prediction in (("one too few", less), ("one too many", more)):
        values = []
        for metric in (MeanAbsoluteError(), MeanSquaredError(), CoefficientOfDetermination()):
            metric.reference, metric.prediction = label.astype(kind), prediction.astype(kind)
            values.append(f"{metric.metric} {metric.calculate():.4f}")
        print(f"{np.dtype(kind)}, {name}: " + ", ".join(values))
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("pymia", "numpy"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: differences of uint8 masks wrap around in pymia"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-29 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-29"
