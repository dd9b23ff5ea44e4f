#!/usr/bin/env bash
# Test-time augmentation turns a binary model's clear background into foreground everywhere.
#
# Setting: a head with one output channel (out_channels=1) that gives every pixel the logit -6,
# which is a foreground probability of 0.0025. It sees an image alone, then through SegTTAModel
# with the image and its mirror: the two views agree exactly.
#
# Guess before running (sources read first): alone no foreground; with TTA 100 % foreground. One
# would expect the mean of two equal answers to be that answer.
#
# What happens (onedl-mmsegmentation 1.4.2): for one channel, BaseSegmentor.postprocess_result in
# mmseg/models/segmentors/base.py puts probabilities, not logits, in the field "seg_logits".
# SegTTAModel.merge_preds in mmseg/models/segmentors/seg_tta.py takes the sigmoid of that field once
# more. A sigmoid of a number from 0 to 1 lies between 0.5 and 0.73, so each pixel is above the
# default threshold 0.3, and above 0.5 as here. There is no message and no error.
#
# Date: 2026-11-28, Python 3.11, CPU. Guess right. Output seen: SEEN below.
#
# For users: do not evaluate a one-channel model with SegTTAModel as it is. Use two output channels,
# or override merge_preds so that it averages seg_logits without a sigmoid. The average foreground
# share of a few images, with and without TTA, shows the trouble at once.
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
threshold 0.3: alone: seg_logits 0.0025, foreground 0.0 %; TTA: foreground 100.0 %
threshold 0.5: alone: seg_logits 0.0025, foreground 0.0 %; TTA: foreground 100.0 %
END
)

TEMPORARY=$(mktemp -d)
trap 'rm -rf "$TEMPORARY"' EXIT
cd "$TEMPORARY"
"${PYTHON:-python3.11}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check "${PACKAGES[@]}" || exit 2

cat >program.py <<'END'
import contextlib
import sys
import warnings

warnings.filterwarnings("ignore")
import logging

import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules

logging.disable(logging.WARNING)
with contextlib.redirect_stdout(sys.stderr):  # it names optional packages that are not there
    register_all_modules()


def sample(flip):
    one = SegDataSample(metainfo=dict(
        img_path="field.png", ori_shape=(64, 64), img_shape=(64, 64),
        flip=flip, flip_direction="horizontal" if flip else None))
    one.gt_sem_seg = PixelData(data=torch.zeros(1, 64, 64, dtype=torch.long))
    return one


def share(results):
    return 100 * results[0].pred_sem_seg.data.float().mean().item()


torch.manual_seed(0)
model = MODELS.build(ConfigDict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(type="ResNetV1c", depth=18, norm_cfg=dict(type="BN")),
    decode_head=dict(type="FCNHead", in_channels=512, in_index=3, channels=512, num_convs=0,
                     concat_input=False, num_classes=2, out_channels=1,
                     loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=True)),
    test_cfg=dict(mode="whole"))).eval()
# a head that is sure of background on every pixel: logit -6, probability 0.0025
torch.nn.init.zeros_(model.decode_head.conv_seg.weight)
torch.nn.init.constant_(model.decode_head.conv_seg.bias, -6.0)
tta = MODELS.build(dict(type="SegTTAModel", module=model)).eval()

image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
plain = model.test_step(dict(inputs=[image], data_samples=[sample(False)]))
views = dict(inputs=[[image], [image.flip(2)]], data_samples=[[sample(False)], [sample(True)]])
plain_step, tta_step = torch.no_grad()(model.test_step), torch.no_grad()(tta.test_step)
for threshold in (model.decode_head.threshold, 0.5):
    model.decode_head.threshold = threshold
    plain = plain_step(dict(inputs=[image], data_samples=[sample(False)]))
    print(f"threshold {threshold}: alone: seg_logits {plain[0].seg_logits.data.mean():.4f}, "
          f"foreground {share(plain):.1f} %; TTA: foreground {share(tta_step(views)):.1f} %")
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("torch", "onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation", "numpy"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: TTA of two equal views of clear background is all foreground"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-28 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-28"
