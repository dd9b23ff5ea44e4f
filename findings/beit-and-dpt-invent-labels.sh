#!/usr/bin/env bash
# The image processors of BEiT and DPT resize label maps as they resize photos, and so invent classes.
#
# Setting: a label map of 64 x 64 pixels with the values 0, 5 and 255 goes as segmentation_maps to processors of
# five models, which resize it to 32 x 32. No padding, no reduction of labels.
#
# Guess before running: 0, 5 and 255, resized by the nearest pixel (written down for Segformer's processor, and
# expected of the others).
#
# What happens (transformers 5.24.0): the processors of Segformer, MobileViT and MobileNetV2 resize maps by the
# nearest pixel. In image_processing_beit.py and image_processing_dpt.py the settings for maps turn off the
# normalisation but keep resample, which is bicubic: between two labels there are values of neither, which are
# classes of their own. There is no message.
#
# Date: 2026-11-29, Python 3.11, CPU. Guess wrong for BEiT and DPT. Output seen: SEEN below.
#
# For users: resize label maps with the nearest pixel before these processors, and pass do_resize=False; or use
# SegformerImageProcessor with the same size, mean and std.
#
# Needs Python 3.11 (PYTHON names another), pip, and 7 GB of disk while it runs.
# Exit status: 0 as seen then, 1 the behaviour changed, 2 it could not be set up or run.
set -euo pipefail

PACKAGES=(
    torch==2.15.0 torchvision==0.29.2 numpy==2.4.6 pillow==13.0.0 transformers==5.24.0
)
SEEN=$(cat <<'END'
SegformerImageProcessor: labels [0, 5, 255]
MobileViTImageProcessor: labels [0, 5, 255]
MobileNetV2ImageProcessor: labels [0, 5, 255]
BeitImageProcessor: labels [0, 5, 17, 238, 255]
DPTImageProcessor: labels [0, 5, 17, 238, 255]
END
)

TEMPORARY=$(mktemp -d)
trap 'rm -rf "$TEMPORARY"' EXIT
cd "$TEMPORARY"
"${PYTHON:-python3.11}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check "${PACKAGES[@]}" || exit 2

cat >program.py <<'END'
import logging
import warnings

warnings.filterwarnings("ignore")

import numpy as np
import transformers

logging.disable(logging.WARNING)
image = np.zeros((64, 64, 3), np.uint8)
labels = np.zeros((64, 64), np.uint8)
labels[16:48, 16:48], labels[:4] = 5, 255  # background, class 5, unlabelled

for name in ("Segformer", "MobileViT", "MobileNetV2", "Beit", "DPT"):
    processor = getattr(transformers, f"{name}ImageProcessor")(size=dict(height=32, width=32), do_center_crop=False)
    found = processor(image, segmentation_maps=labels, return_tensors="pt")["labels"]
    print(f"{name}ImageProcessor: labels {found.unique().tolist()}")
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("torch", "torchvision", "transformers"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: BEiT's and DPT's processors interpolate label maps"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-29 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-29"
