#!/usr/bin/env bash
# In mmsegmentation's COCO-Stuff a person and a bicycle are drawn in the same colour, in ADE20K road and skyscraper.
#
# Setting: the class names and palettes that four datasets publish, and two overlays of SegLocalVisualizer: one with
# a person on the right half, one with a bicycle there.
#
# Guess before running: each class has a colour of its own; two overlays of different label maps differ.
#
# What happens (onedl-mmsegmentation 1.4.2): ten groups of classes share a colour in
# mmseg/datasets/{coco_stuff,ade,pascal_context}.py. A predicted person in place of a bicycle cannot be seen in an
# overlay, and label maps cannot be read back from coloured pictures. There is no message. Cityscapes is clean.
#
# Date: 2026-11-29, Python 3.11, CPU. Guess wrong. Output seen: SEEN below.
#
# For users: set metainfo=dict(palette=...) in the dataset, with a colour for each class, before looking at overlays;
# write label maps as indices (tools/test.py --out), not as colours.
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
CityscapesDataset: 19 classes, 19 colours
ADE20KDataset: 150 classes, 149 colours
  road, skyscraper
PascalContextDataset: 60 classes, 59 colours
  bicycle, snow
COCOStuffDataset: 171 classes, 162 colours
  person, bicycle
  car, fog
  motorcycle, remote
  truck, traffic light, cloth
  parking meter, broccoli
  bird, oven
  cat, apple
  horse, dirt
overlays of a person and of a bicycle: equal pixels 100 %
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
import contextlib
import logging

with contextlib.redirect_stdout(None):  # tells of a package that is not there
    import mmseg.datasets
import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

logging.disable(logging.CRITICAL)

for name in ("CityscapesDataset", "ADE20KDataset", "PascalContextDataset", "COCOStuffDataset"):
    meta = getattr(mmseg.datasets, name).METAINFO
    sharing = {}
    for label, colour in zip(meta["classes"], map(tuple, meta["palette"])):
        sharing.setdefault(colour, []).append(label)
    print(f"{name}: {len(meta['classes'])} classes, {len(sharing)} colours")
    for labels in sharing.values():
        if len(labels) > 1:
            print("  " + ", ".join(labels))


def overlay(label):
    labels = torch.full((1, 32, 32), meta["classes"].index("sky-other"))
    labels[..., 16:] = meta["classes"].index(label)
    visualizer = SegLocalVisualizer()
    visualizer.dataset_meta = meta
    sample = SegDataSample(pred_sem_seg=PixelData(data=labels))
    visualizer.add_datasample("", np.zeros((32, 32, 3), np.uint8), sample, draw_gt=False, with_labels=False)
    return visualizer.get_image()


equal = (overlay("person") == overlay("bicycle")).mean()
print(f"overlays of a person and of a bicycle: equal pixels {equal:.0%}".replace("%", " %"))
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("onedl-mmsegmentation", "onedl-mmengine", "numpy"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: classes of one dataset share a colour of its palette"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-29 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-29"
