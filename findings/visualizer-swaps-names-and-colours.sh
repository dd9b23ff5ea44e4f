#!/usr/bin/env bash
# SegLocalVisualizer(classes=..., palette=...) takes the colours for names and the names for colours.
#
# Setting: two classes with a colour each, given to the constructor, as its docstring and a config's
# visualizer=dict(type="SegLocalVisualizer", classes=..., palette=...) allow; then a prediction is drawn.
#
# Guess before running: the overlay has the two colours, as it has after set_dataset_meta with the same lists.
#
# What happens (onedl-mmsegmentation 1.4.2): the constructor in mmseg/visualization/local_visualizer.py passes palette
# and classes by position to set_dataset_meta, whose parameters have the other order. Nothing is checked until
# something is drawn, which ends in a ValueError about an integer.
#
# Date: 2026-11-29, Python 3.11, CPU. Guess wrong. Output seen: SEEN below.
#
# For users: call set_dataset_meta(classes=..., palette=...), or set metainfo in the dataset: hooks pass it on.
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
set_dataset_meta: [[0, 0, 200], [0, 160, 0]]
constructor: {'classes': [[0, 160, 0], [0, 0, 200]], 'palette': ['land', 'water']}
constructor, when drawing: ValueError: invalid literal for int() with base 10: 'water'
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
import logging

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

logging.disable(logging.CRITICAL)

meta = dict(classes=["land", "water"], palette=[[0, 160, 0], [0, 0, 200]])
labels = torch.zeros(1, 8, 8, dtype=torch.long)
labels[..., 4:] = 1
sample = SegDataSample(pred_sem_seg=PixelData(data=labels))


def colours(visualizer):
    image = np.zeros((8, 8, 3), np.uint8)
    visualizer.add_datasample("", image, sample, draw_gt=False, with_labels=False)
    return np.unique(visualizer.get_image().reshape(-1, 3), axis=0).tolist()


named = SegLocalVisualizer(alpha=1.0)
named.set_dataset_meta(**meta)
print("set_dataset_meta:", colours(named))
built = SegLocalVisualizer(alpha=1.0, **meta)
print("constructor:", built.dataset_meta)
try:
    print("constructor:", colours(built))
except ValueError as error:
    print("constructor, when drawing: ValueError:", error)
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("onedl-mmsegmentation", "onedl-mmengine", "numpy"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: the visualizer's constructor swaps classes and palette"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-29 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-29"
