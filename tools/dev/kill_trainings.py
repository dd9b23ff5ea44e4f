"""Kill a training at random moments, resume it, and measure what was lost.

Every round starts tools/train.py with --resume and sends SIGKILL after a random time: in turn
between iterations, while it writes a checkpoint, while it validates, while it writes the best
weights, and while it starts and reads the last checkpoint. After each, the checkpoints and the best
weights must be readable. Finally the training runs to its end, and its weights, last and best, are
compared with those of an uninterrupted run.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from tvit_seg.engine.hooks.checkpoint import latest_checkpoint
from tvit_seg.weights.io import get_state_dict, read_checkpoint

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py"
MOMENTS = ("training", "saving", "validating", "saving the best", "starting")
BEST = ("mIoU", "mAcc")  # two metrics, so that there is a new best more often


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="rounds (50)")
    parser.add_argument("--interval", type=int, default=3, help="between checkpoints (3)")
    parser.add_argument("--iters", type=int, default=400, help="length of the training (400)")
    parser.add_argument("--data-root", type=Path, default=Path("data/scenes"), help="the scenes")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/kills"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    return parser.parse_args(argv)


class Training:
    """A short training of the quickstart in a folder of its own."""

    def __init__(self, args: argparse.Namespace, name: str):
        self.folder = args.work_dir / name
        self.folder.mkdir(parents=True)
        self.command = [
            sys.executable, ROOT / "tools/train.py", CONFIG, "--work-dir", self.folder, "--resume",
            "--skip-data-check", "--cfg-options", f"train_cfg.max_iters={args.iters}",
            f"train_cfg.val_interval={args.interval}", "train_dataloader.batch_size=2",
            "val_dataloader.batch_size=1", "val_dataloader.dataset.indices=24",
            "val_dataloader.num_workers=0", "val_dataloader.persistent_workers=False",
            f"default_hooks.checkpoint.save_best=[{','.join(BEST)}]",
            "default_hooks.checkpoint.rule=greater",
            *(f"{part}_dataloader.dataset.data_root={args.data_root}" for part in ("train", "val")),
            f"default_hooks.checkpoint.interval={args.interval}", "default_hooks.logger.interval=1",
            "randomness.seed=0",
        ]  # fmt: skip

    def start(self, log: Path) -> subprocess.Popen:
        return subprocess.Popen(self.command, stdout=log.open("w"), stderr=subprocess.STDOUT)

    def finish(self) -> None:
        log = self.folder / "last.log"
        if self.start(log).wait():
            raise SystemExit(f"the training fails, see {log}")

    def unfinished(self) -> set[Path]:
        """Files that are being written, or that a kill left behind."""
        return set(self.folder.glob("*.pth.*.tmp"))


def iterations(log: Path) -> list[int]:
    """Iterations in a log, after the one that training resumed at; may be empty."""
    text = log.read_text()
    resumed = re.search(r"resumed epoch: \d+, iter: (\d+)", text)
    found = [int(i) for i in re.findall(r"Iter\(train\) \[ *(\d+)/", text)]
    if resumed:
        return [int(resumed[1]), *found]
    return [0, *found] if found else []


def is_validating(log: Path) -> bool:
    """Return whether a log ends in a validation without a result."""
    lines = re.findall(r"Iter\((?:train|val)\).*", log.read_text())
    return bool(lines) and "(val)" in lines[-1] and BEST[0] not in lines[-1]


def of_kind(best: bool, files: set[Path]) -> set[Path]:
    """Those of best weights, or of checkpoints."""
    return {path for path in files if path.name.startswith("best_") == best}


class Killer:
    """Starts trainings and kills them; ``met`` counts kills by what they interrupted."""

    def __init__(self, training: Training, interval: int, seed: int):
        self.training, self.interval = training, interval
        self.random = random.Random(seed)
        self.met = dict.fromkeys(("starting", "writing", "validating", "writing_best"), 0)
        self.start_time = 5.0  # seconds until the first iteration, in the last round

    def round(self, log: Path, moment: str) -> list[int]:
        """Run a training until a moment; return :func:`iterations` of its log."""
        leftovers, begin = self.training.unfinished(), time.monotonic()
        process = self.training.start(log)
        if moment == "starting":
            self._wait(process, self.start_time)
        else:
            self._wait_until(process, lambda: len(iterations(log)) > 1)
            self.start_time = time.monotonic() - begin
            steps = self.random.randint(1, 2 * self.interval)
            self._wait_until(process, lambda: len(iterations(log)) > steps)
            self._wait(process, 0.5)
        old = self.training.unfinished()
        last = len(iterations(log)) + 4 * self.interval  # do not wait forever
        begun, most = {
            "validating": (lambda: is_validating(log), 0.1),
            "saving": (lambda: of_kind(False, self.training.unfinished() - old), 0.02),
            "saving the best": (lambda: of_kind(True, self.training.unfinished() - old), 0.02),
        }.get(moment, (lambda: True, 0.0))
        self._wait_until(process, lambda: begun() or len(iterations(log)) >= last)
        self._wait(process, most)
        if process.poll() is not None:
            raise SystemExit(f"the training ended before it was killed, see {log}; raise --iters")
        process.kill()
        process.wait()
        found, new = iterations(log), self.training.unfinished() - leftovers
        self.met["starting"] += len(found) < 2
        self.met["writing"] += bool(of_kind(False, new))
        self.met["validating"] += is_validating(log)
        self.met["writing_best"] += bool(of_kind(True, new))
        return found

    def _wait(self, process: subprocess.Popen, most: float) -> None:
        deadline = time.monotonic() + self.random.uniform(0, most)
        self._wait_until(process, lambda: time.monotonic() >= deadline)

    def _wait_until(self, process: subprocess.Popen, done: Callable[[], object]) -> None:
        while process.poll() is None and not done():
            time.sleep(0.002)


def check_best(folder: Path, known: set[str]) -> None:
    """Require that best weights can be read, and are still there once they are ``known``."""
    for name in BEST:
        found = list(folder.glob(f"best_{name}_*.pth"))
        for path in found:
            read_checkpoint(path)
        if name in known and not found:
            raise SystemExit(f"the best weights by {name} are gone from {folder}")
        known.update([name] * bool(found))


def last_and_best(folder: Path, iters: int) -> dict[str, Tensor]:
    """All weights of the last checkpoint and of the best ones, by file and name."""
    paths = [folder / f"iter_{iters}.pth", *folder.glob("best_*.pth")]
    states = {path.name: get_state_dict(read_checkpoint(path)) for path in paths}
    return {f"{file} {name}": x for file, state in states.items() for name, x in state.items()}


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    shutil.rmtree(args.work_dir, ignore_errors=True)
    training = Training(args, "killed")
    killer, best = Killer(training, args.interval, args.seed), set()
    last, lost, most, made_up = 0, [], 0, 0
    for i in tqdm(range(args.kills), desc="kills"):
        log = args.work_dir / f"{i}.log"
        found = killer.round(log, MOMENTS[i % len(MOMENTS)])
        if "Traceback" in log.read_text():
            raise SystemExit(f"round {i} fails, see {log}")
        if found:
            lost.append(last - found[0])
            if not 0 <= lost[-1] <= args.interval:
                raise SystemExit(f"round {i} resumes at {found[0]} after {last}, see {log}")
            last = found[-1]
        made_up += "was saved and not validated" in log.read_text()
        most = max(most, len(list(training.folder.glob("iter_*.pth"))))
        if path := latest_checkpoint(training.folder):
            read_checkpoint(path)
        check_best(training.folder, best)
    training.finish()
    whole = Training(args, "whole")
    whole.finish()
    ours, theirs = (last_and_best(run.folder, args.iters) for run in (training, whole))
    same = ours.keys() == theirs.keys() and all(torch.equal(x, theirs[k]) for k, x in ours.items())
    figures = dict(
        kills=args.kills, met=killer.met, validations_made_up_for=made_up,
        most_lost=max(lost), interval=args.interval, checkpoints=most,
        leftovers=len(training.unfinished()), equal_weights=same,
    )  # fmt: skip
    print(json.dumps(figures, indent=2))
    if not same:
        raise SystemExit("the weights differ from those of an uninterrupted run")


if __name__ == "__main__":
    main()
