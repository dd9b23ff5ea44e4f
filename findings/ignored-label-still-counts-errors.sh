#!/usr/bin/env bash
# ignite's IoU(ignore_index=3) counts the pixels of label 3 as errors of the other classes.
#
# Setting: labels and predictions of four classes, of which 3 stands for "unlabelled". ignite's IoU and torchmetrics'
# MulticlassJaccardIndex with ignore_index=3, and the IoU over the pixels whose label is not 3.
#
# Guess before running: all three agree, as an ignored label is one that no score depends on.
#
# What happens (pytorch-ignite 0.5.5): ignite computes the IoU of all classes over all pixels and then leaves out the
# one of class 3. A pixel of label 3 that is predicted as 0 is in the union of class 0. There is no message.
#
# Date: 2026-11-29, Python 3.11, CPU. Guess wrong. Output seen: SEEN below.
#
# For users: give unlabelled pixels a label outside of 0 to num_classes - 1 (255): ignite's ConfusionMatrix drops
# those before it counts.
#
# Needs Python 3.11 (PYTHON names another), pip, and 7 GB of disk while it runs.
# Exit status: 0 as seen then, 1 the behaviour changed, 2 it could not be set up or run.
set -euo pipefail

PACKAGES=(torch==2.15.0 numpy==2.4.6 pytorch-ignite==0.5.5 torchmetrics==1.9.0)
SEEN=$(cat <<'END'
labelled pixels: 0.632 0.650 0.684
torchmetrics, ignore_index: 0.632 0.650 0.684
ignite, ignore_index: 0.375 0.565 0.684
ignite, label 255: 0.632 0.650 0.684
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

import torch
from ignite.engine import Engine
from ignite.metrics import ConfusionMatrix, IoU
from torchmetrics.classification import MulticlassJaccardIndex

CLASSES, UNLABELLED = 4, 3


def ignite(label, **options):
    engine = Engine(lambda _, batch: batch)
    IoU(ConfusionMatrix(CLASSES), **options).attach(engine, "IoU")
    scores = torch.nn.functional.one_hot(prediction, CLASSES).movedim(-1, 1).float()
    return engine.run([(scores, label)]).metrics["IoU"]


def show(name, values):
    print(f"{name}: " + " ".join(f"{value:.3f}" for value in values[:UNLABELLED]))


rows = torch.arange(64).view(1, 8, 8)
label = rows % CLASSES
prediction = torch.where(rows % 5 == 0, (label + 1) % UNLABELLED, label % UNLABELLED)
labelled = label != UNLABELLED
pairs = [(label == c, prediction == c) for c in range(UNLABELLED)]
show("labelled pixels", [(a & b & labelled).sum() / ((a | b) & labelled).sum() for a, b in pairs])
jaccard = MulticlassJaccardIndex(CLASSES, ignore_index=UNLABELLED, average=None)
show("torchmetrics, ignore_index", jaccard(prediction, label))
show("ignite, ignore_index", ignite(label, ignore_index=UNLABELLED))
show("ignite, label 255", ignite(label.masked_fill(~labelled, 255)))
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("torch", "pytorch-ignite", "torchmetrics"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: ignite leaves the ignored class out, not its pixels"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-29 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-29"
