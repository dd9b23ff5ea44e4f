#!/usr/bin/env bash
# HuasdorffDisstanceLoss of three classes is lower for an empty prediction than for a right one.
#
# Setting: a label of 32 x 32 pixels with a block of class 1 and one of class 2. The loss is computed for
# logits (20 or 0) that are right, that say class 1 for class 2, and that say background everywhere.
#
# Guess before running (source read first): the right prediction does not cost 0; a prediction of class 1
# for class 2 costs about the same; which of the three is lowest, unknown.
#
# What happens (onedl-mmsegmentation 1.4.2): hd_loss in
# mmseg/models/losses/huasdorff_distance_loss.py subtracts the label map itself, with the values 0, 1
# and 2, from the probability of each class, in place of the mask of that class. The probability of
# class 2 is pulled towards 1 where the label is 1. Only with two classes is the map its own mask.
#
# Date: 2026-11-28, Python 3.11, CPU. Guess right; the empty prediction is the lowest of the three. Output
# seen: SEEN below.
#
# For users: do not use this loss with more than two classes.
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
right: 8.438
class 2 as class 1: 8.438
background everywhere: 7.031
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
import torch.nn.functional as F
from mmseg.registry import MODELS

torch.set_num_threads(1)
label = torch.zeros(1, 32, 32, dtype=torch.long)
label[:, 4:14, 4:28], label[:, 18:28, 4:28] = 1, 2
loss = MODELS.build(dict(type="HuasdorffDisstanceLoss"))
predictions = {
    "right": label,
    "class 2 as class 1": label.clamp(max=1),
    "background everywhere": torch.zeros_like(label),
}
for name, prediction in predictions.items():
    logits = 20.0 * F.one_hot(prediction, 3).movedim(-1, 1)
    # as every decode head of mmsegmentation calls it
    print(f"{name}: {loss(logits, label, weight=None, ignore_index=255):.3f}")
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("torch", "onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation", "numpy"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: the Hausdorff loss of three classes is lower for background everywhere than for the right map"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-28 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-28"
