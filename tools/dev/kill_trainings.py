"""Kills a training at random moments, resumes it, and looks at what was lost.

Every round starts tools/train.py with --resume and sends SIGKILL after a random time: in turns
between iterations, while it writes a checkpoint, while it validates, while it writes the best
weights, and while it starts and reads the last checkpoint. After each, the checkpoints and the best
weights there are have to be whole. At the end the training runs to its end, and its weights, last
and best, are compared with those of a run that nobody killed.
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
from typing import Any

import torch
from tqdm import tqdm

from tvit_seg.engine.cli import latest_checkpoint
from tvit_seg.weights.io import get_state_dict, read_checkpoint

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py"
POLL = 0.002  # seconds
PATIENCE = 4  # checkpoints that may be waited for
MOMENTS = ("training", "saving", "validating", "saving the best", "starting")
BEST = ("mIoU", "mAcc")  # two, so that there is a new best more often


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="rounds (50)")
    parser.add_argument(
        "--interval", type=int, default=3, help="iterations from checkpoint to checkpoint (3)"
    )
    parser.add_argument("--iters", type=int, default=400, help="length of the training (400)")
    parser.add_argument("--data-root", type=Path, default=Path("data/scenes"), help="the scenes")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/kills"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    return parser.parse_args(argv)


class Training:
    """A short training of the quickstart in a folder of its own."""

    def __init__(self, args: argparse.Namespace, name: str):
        self.folder = args.work_dir / name
        self.interval = args.interval
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
        file = log.open("w")
        return subprocess.Popen([*map(str, self.command)], stdout=file, stderr=subprocess.STDOUT)

    def finish(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "last.log"
        if self.start(log).wait():
            raise SystemExit(f"the training does not end well, see {log}")


def iterations(log: Path) -> list[int]:
    """Those that a log names, with the one that training resumed at in front; may be empty."""
    text = log.read_text()
    resumed = re.search(r"resumed epoch: \d+, iter: (\d+)", text)
    found = [int(i) for i in re.findall(r"Iter\(train\) \[ *(\d+)/", text)]
    if resumed:
        return [int(resumed[1]), *found]
    return [0, *found] if found else []


def is_validating(log: Path) -> bool:
    """Whether a log ends in a validation without a result."""
    lines = re.findall(r"Iter\((?:train|val)\).*", log.read_text())
    return bool(lines) and "(val)" in lines[-1] and BEST[0] not in lines[-1]


class Killer:
    """Starts trainings and kills them.

    Attributes:
        met: How often what was going on.
    """

    def __init__(self, training: Training, seed: int):
        self.training = training
        self.random = random.Random(seed)
        self.met = dict.fromkeys(("starting", "writing", "validating", "writing_best"), 0)
        self.start_time = 5.0  # seconds until the first iteration, as last seen

    def round(self, log: Path, moment: str) -> list[int]:
        """Returns the iterations of one life: where it resumed, what it logged; may be empty."""
        leftovers, begin = self._unfinished(), time.monotonic()
        process = self.training.start(log)
        if moment == "starting":
            self._wait(process, self.random.uniform(0, self.start_time))
        else:
            self._train(process, log, self.random.randint(1, 2 * self.training.interval), begin)
            self._wait(process, self.random.uniform(0, 0.5))
        if moment == "validating":
            self._wait_for(process, log, lambda: is_validating(log), 0.1)
        elif moment.startswith("saving"):
            old, best = self._unfinished(), moment != "saving"
            self._wait_for(process, log, lambda: _of(best, self._unfinished() - old), 0.02)
        if process.poll() is not None:
            raise SystemExit(f"the training ended before it was killed, see {log}; raise --iters")
        process.kill()
        process.wait()
        seen = iterations(log)
        new = self._unfinished() - leftovers
        self.met["starting"] += len(seen) < 2
        self.met["writing"] += bool(_of(False, new))
        self.met["validating"] += is_validating(log)
        self.met["writing_best"] += bool(_of(True, new))
        return seen

    def _train(self, process: subprocess.Popen, log: Path, steps: int, begin: float) -> None:
        while process.poll() is None and len(iterations(log)) <= 1:
            time.sleep(POLL)
        self.start_time = time.monotonic() - begin
        while process.poll() is None and len(iterations(log)) <= steps:
            time.sleep(POLL)

    def _wait(self, process: subprocess.Popen, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL)

    def _wait_for(
        self, process: subprocess.Popen, log: Path, begun: Callable[[], Any], most: float
    ) -> None:
        """Until something begins, but no more than some checkpoints, and a random time into it."""
        last = len(iterations(log)) + PATIENCE * self.training.interval
        while process.poll() is None and not begun() and len(iterations(log)) < last:
            time.sleep(POLL)
        self._wait(process, self.random.uniform(0, most))

    def _unfinished(self) -> set[Path]:
        return set(self.training.folder.glob("*.pth.*.tmp"))


def _of(best: bool, files: set[Path]) -> set[Path]:
    return {path for path in files if path.name.startswith("best_") == best}


class BestWeights:
    """Once there are any, there always are, and can be read."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.since: set[str] = set()

    def look(self) -> None:
        for name in BEST:
            found = list(self.folder.glob(f"best_{name}_*.pth"))
            for path in found:
                read_checkpoint(path)
            if name in self.since and not found:
                raise SystemExit(f"the best weights by {name} are gone from {self.folder}")
            self.since.update([name] * bool(found))


def equal_weights(one: Path, other: Path) -> bool:
    ours, theirs = (get_state_dict(read_checkpoint(path)) for path in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.work_dir.exists():
        shutil.rmtree(args.work_dir)
    training = Training(args, "killed")
    training.folder.mkdir(parents=True)
    killer, best = Killer(training, args.seed), BestWeights(training.folder)
    last, lost, most, made_up = 0, [], 0, 0
    for i in tqdm(range(args.kills), desc="kills"):
        log = args.work_dir / f"{i}.log"
        seen = killer.round(log, MOMENTS[i % len(MOMENTS)])
        if "Traceback" in log.read_text():
            raise SystemExit(f"round {i} fails, see {log}")
        if seen:
            lost.append(last - seen[0])
            if not 0 <= lost[-1] <= args.interval:
                raise SystemExit(f"round {i} resumes at {seen[0]} after {last}, see {log}")
            last = seen[-1]
        made_up += "was saved and not validated" in log.read_text()
        most = max(most, len(list(training.folder.glob("iter_*.pth"))))
        if path := latest_checkpoint(training.folder):
            read_checkpoint(path)
        best.look()
    training.finish()
    Training(args, "whole").finish()
    whole = args.work_dir / "whole"
    ours, theirs = (
        {f"iter_{args.iters}.pth", *(path.name for path in folder.glob("best_*.pth"))}
        for folder in (training.folder, whole)
    )
    same = ours == theirs and all(equal_weights(training.folder / n, whole / n) for n in ours)
    figures = dict(
        kills=args.kills, met=killer.met, validations_made_up_for=made_up,
        most_lost=max(lost), interval=args.interval, checkpoints=most,
        leftovers=len(list(training.folder.glob("*.tmp"))), equal_weights=same,
    )  # fmt: skip
    (args.work_dir / "kills.json").write_text(json.dumps(figures, indent=2))
    print(json.dumps(figures, indent=2))
    if not same:
        raise SystemExit("the weights differ from those of a run that nobody killed")


if __name__ == "__main__":
    main()
