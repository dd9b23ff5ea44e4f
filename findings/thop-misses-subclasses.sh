#!/usr/bin/env bash
# thop counts no multiply-accumulates in a subclass of nn.Linear, and says so nowhere but in one line of a log.
#
# Setting: two networks with the same weights and results, one of nn.Linear, one of a subclass that changes nothing.
#
# Guess before running: the same count for both, as a subclass is the layer that it derives from.
#
# What happens (thop 0.1.1.post2209072238): profile() looks the exact type of a module up in its table of rules. For
# a subclass there is no rule, and its products count as 0. With verbose=True a line says that zero is assumed; the
# result is a number like any other.
#
# Date: 2026-11-28, Python 3.11, CPU. Guess wrong. Output seen: SEEN below.
#
# For users: count with torch.utils.flop_counter, which follows operators, or pass custom_ops for each subclass.
#
# Needs Python 3.11 (PYTHON names another), pip, and 7 GB of disk while it runs.
# Exit status: 0 as seen then, 1 the behaviour changed, 2 it could not be set up or run.
set -euo pipefail

PACKAGES=(torch==2.15.0 numpy==2.4.6 thop==0.1.1.post2209072238)
SEEN=$(cat <<'END'
nn.Linear: 2048 MACs by thop, 2048 by operators
subclass: 0 MACs by thop, 2048 by operators
END
)

TEMPORARY=$(mktemp -d)
trap 'rm -rf "$TEMPORARY"' EXIT
cd "$TEMPORARY"
"${PYTHON:-python3.11}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check "${PACKAGES[@]}" || exit 2

cat >program.py <<'END'
import torch
from thop import profile
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


class Same(nn.Linear):
    """A linear layer that changes nothing."""


x = torch.zeros(1, 32)
for name, layer in (("nn.Linear", nn.Linear), ("subclass", Same)):
    network = nn.Sequential(layer(32, 32), nn.GELU(), layer(32, 32)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    macs, _ = profile(network, inputs=(x,), verbose=False)
    print(f"{name}: {macs:.0f} MACs by thop, {counter.get_total_flops() // 2} by operators")
END

echo "versions:"
venv/bin/python - <<'END' || exit 2
import platform
from importlib.metadata import version

print("  python", platform.python_version())
for name in ("torch", "thop"):
    print(f"  {name} {version(name)}")
END
echo "behaviour: thop counts no multiply-accumulates in a subclass of nn.Linear"
NOW=$(CUDA_VISIBLE_DEVICES='' venv/bin/python program.py) || exit 2
echo "output:"
sed 's/^/  /' <<<"$NOW"
if [[ $NOW != "$SEEN" ]]; then
    echo "changed: on 2026-11-28 it was"
    sed 's/^/  /' <<<"$SEEN"
    exit 1
fi
echo "as seen on 2026-11-28"
