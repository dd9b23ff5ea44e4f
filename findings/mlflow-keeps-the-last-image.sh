#!/usr/bin/env bash
# MLflowVisBackend keeps one image per name: each validation's overlays replace those before. artifact_location is ignored.
#
# Setting: mmengine's backend for MLflow gets an image and a scalar of the same name at steps 1 and 2, and a place for
# artifacts.
#
# Guess before running: two images, as there are two values, in the place asked for.
#
# What happens (onedl-mmengine 0.10.12, mlflow-skinny 3.17.2): add_image takes a step and passes only the name on, so that
# the second image replaces the first. The place is used only for a new experiment; without exp_name the experiment is
# 'Default', which always exists. Neither says so.
#
# Date: 2026-11-28, Python 3.11, CPU. Guess wrong. Output seen: SEEN below.
#
# For users: give exp_name; keep LocalVisBackend beside it, whose files have the step in their names.
#
# Needs Python 3.11 (PYTHON names another), pip, and 7 GB of disk while it runs.
# Exit status: 0 as seen then, 1 the behaviour changed, 2 it could not be set up or run.
set -euo pipefail

PACKAGES=(
    torch==2.15.0 numpy==2.4.6 onedl-mmengine==0.10.12 opencv-python==5.0.0.93
    mlflow-skinny==3.17.2 sqlalchemy==2.1.9 alembic==1.20.1 pillow==13.0.0
)
SEEN=$(cat <<'END'
steps of mIoU: [1, 2]
images kept: 1
in the place asked for: 0
END
)

TEMPORARY=$(mktemp -d)
trap 'rm -rf "$TEMPORARY"' EXIT
cd "$TEMPORARY"
"${PYTHON:-python3.11}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check "${PACKAGES[@]}" || exit 2

cat >program.py <<'END'
from pathlib import Path

import mlflow
import numpy as np
from mmengine.visualization import MLflowVisBackend

backend = MLflowVisBackend("work", tracking_uri="sqlite:///mlflow.db", artifact_location="wanted")
for step, value in ((1, 0), (2, 255)):
    backend.add_image("val_a.png", np.full((8, 8, 3), value, np.uint8), step=step)
    backend.add_scalar("mIoU", value / 255, step=step)
client, run = mlflow.MlflowClient(), mlflow.active_run().info
images = sorted(Path().rglob("val_a*.png"))
print("steps of mIoU:", [metric.step for metric in client.get_metric_history(run.run_id, "mIoU")])
print("images kept:", len(images))
print("in the place asked for:", sum("wanted" in path.parts for path in images))
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("onedl-mmengine", "mlflow-skinny"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: MLflowVisBackend drops the step of images, and artifact_location"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py 2>/dev/null | tail -3) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-28 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-28"
