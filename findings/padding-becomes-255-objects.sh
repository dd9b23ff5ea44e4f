#!/usr/bin/env bash
# Mask2Former's and MaskFormer's processors write 255 into binary masks where an image of a batch is padded.
#
# Setting: two images, 64 x 64 and 64 x 96, with label maps; ignore_index=255, as the documentation's examples for
# semantic segmentation have it. The processor pads the first image to 64 x 96 and makes a binary mask for each class.
#
# Guess before running: the masks are 0 in the padding, as nothing is there; pixel_mask tells padding apart.
#
# What happens (transformers 5.24.0): they are 255 there, for every class at once. Binary cross-entropy takes 255 for a
# probability: the loss of the right masks is higher than that of masks that are wrong in the whole padding, and the
# lowest loss has no bound. Without ignore_index, or with images of one size, the masks are 0 and 1. No message.
#
# Date: 2026-11-29, Python 3.11, CPU. Guess wrong. Output seen: SEEN below.
#
# For users: crop or pad images and label maps to one size before the processor, or set masks of more than 1 to 0.
#
# Needs Python 3.11 (PYTHON names another), pip, and 7 GB of disk while it runs.
# Exit status: 0 as seen then, 1 the behaviour changed, 2 it could not be set up or run.
set -euo pipefail

PACKAGES=(
    torch==2.15.0 torchvision==0.29.2 numpy==2.4.6 pillow==13.0.0 transformers==5.24.0
)
SEEN=$(cat <<'END'
MaskFormer, {}: values [0.0, 1.0], in the padding [0.0]
MaskFormer, {'ignore_index': 255}: values [0.0, 1.0, 255.0], in the padding [255.0]
Mask2Former, {}: values [0.0, 1.0], in the padding [0.0]
Mask2Former, {'ignore_index': 255}: values [0.0, 1.0, 255.0], in the padding [255.0]
loss of right masks: 850.0
loss of objects in the padding: -846.7
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
import torch
import torch.nn.functional as F
import transformers

logging.disable(logging.WARNING)
images = [np.zeros((64, width, 3), np.uint8) for width in (64, 96)]
labels = [np.zeros((64, width), np.uint8) for width in (64, 96)]
for label in labels:
    label[16:48, 16:48] = 5

for name in ("MaskFormer", "Mask2Former"):
    for options in ({}, dict(ignore_index=255)):
        processor = getattr(transformers, f"{name}ImageProcessor")(do_resize=False, **options)
        masks = processor(images, segmentation_maps=labels, return_tensors="pt")["mask_labels"][0]
        print(f"{name}, {options}: values {masks.unique().tolist()}, in the padding {masks[..., 64:].unique().tolist()}")

right = torch.where(masks == 1, 10.0, -10.0)
wrong = right.clone()
wrong[..., 64:] = 10.0
for name, logits in (("right masks", right), ("objects in the padding", wrong)):
    print(f"loss of {name}: {F.binary_cross_entropy_with_logits(logits, masks):.1f}")
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("torch", "torchvision", "transformers"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: padded targets of MaskFormer and Mask2Former are 255 in every mask"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-29 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-29"
