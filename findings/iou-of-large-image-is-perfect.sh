#!/usr/bin/env bash
# A 5000 x 5000 map with a fifth of its pixels wrong scores 100 % IoU and 100 % accuracy, or 80 %,
# depending on the number of CPU threads.
#
# Setting: two classes, land and water. The truth is land everywhere; the prediction says water on
# the lowest fifth. IoUMetric gets the same tensors with one thread, then with two.
#
# Guess before running (sources read first): one thread: 100 for IoU of land and for aAcc; two
# threads: the true 80, because each thread counts for itself.
#
# What happens (onedl-mmsegmentation 1.4.2, torch 2.15.0): IoUMetric.intersect_and_union in
# mmseg/evaluation/metrics/iou_metric.py turns the classes into float32 and counts them with
# torch.histc, which then counts in float32 too (on the CPU, aten/src/ATen/native/cpu/
# HistogramKernel.cpp: a float counter for each thread and bin, added up at the end). A float32 that
# has reached 2**24 = 16777216 stays there when 1 is added. Right pixels, truth, and union
# all stop at that number, and their ratio is 1. There is no message.
#
# Date: 2026-11-28, Python 3.11, CPU. Guess right. Output seen: SEEN below. Not measured: a GPU.
#
# For users: images of more than 2**24 pixels (4096 x 4096) of one class, as of satellites or
# tissue, can get a score that is too good, and another one on a machine with more cores. One thread
# is usual: torchrun and mmengine's distributed start set OMP_NUM_THREADS to 1. Cut such images
# into tiles for evaluation, or count with torch.bincount, which counts in integers.
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
pixels 25000000, right 20000000
1 thread(s): land: intersection 16777216, union 16777216, truth 16777216; IoU 100.00, aAcc 100.00, mIoU 50.00
2 thread(s): land: intersection 20000000, union 25000000, truth 25000000; IoU 80.00, aAcc 80.00, mIoU 40.00
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

import torch
from mmseg.evaluation import IoUMetric

logging.disable(logging.CRITICAL)

SIDE = 5000
label = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
pred = label.clone()
pred[:, SIDE * 4 // 5:] = 1  # the lowest fifth is wrong
print(f"pixels {label.numel()}, right {(pred == label).sum().item()}")
for threads in (1, 2):
    torch.set_num_threads(threads)
    metric = IoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = dict(classes=("land", "water"))
    metric.process({}, [dict(pred_sem_seg=dict(data=pred), gt_sem_seg=dict(data=label))])
    intersection, union, _, truth = metric.results[0]
    numbers = metric.evaluate(1)
    print(f"{threads} thread(s): land: intersection {intersection[0]:.0f}, union {union[0]:.0f}, "
          f"truth {truth[0]:.0f}; IoU {100 * intersection[0] / union[0]:.2f}, "
          f"aAcc {numbers['aAcc']:.2f}, mIoU {numbers['mIoU']:.2f}")
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("torch", "onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation", "numpy"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: one thread and two threads score the same wrong map differently"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-28 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-28"
