"""Kills a training at random moments, resumes it, and looks at what was lost.

Every round starts tools/train.py with --resume and sends SIGKILL after a random time: in turns
while it starts and reads the last checkpoint, between iterations, and while it writes a checkpoint.
At the end the training runs to its end, and its weights are compared with those of a run that
nobody killed.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from tvit_seg.checkpoint_io import get_state_dict, read_checkpoint
from tvit_seg.engine.launch import latest_checkpoint

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/quickstart/thinkingvit_scenes-96x96.py"
POLL = 0.002  # seconds
MOMENTS = ("training", "saving", "starting")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="rounds (50)")
    parser.add_argument("--interval", type=int, default=3, help="iterations per checkpoint (3)")
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
            "train_cfg.val_interval=100000", "train_dataloader.batch_size=2",
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


class Killer:
    """Starts trainings and kills them.

    Attributes:
        caught: How often a checkpoint was being written.
        early: How often no iteration was done yet.
    """

    def __init__(self, training: Training, seed: int):
        self.training = training
        self.random = random.Random(seed)
        self.caught = 0
        self.early = 0
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
        if moment == "saving":
            self._wait_for_writing(process)
        if process.poll() is not None:
            raise SystemExit(f"the training ended before it was killed, see {log}; raise --iters")
        process.kill()
        process.wait()
        seen = iterations(log)
        self.caught += bool(self._unfinished() - leftovers)
        self.early += len(seen) < 2
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

    def _wait_for_writing(self, process: subprocess.Popen) -> None:
        old = self._unfinished()
        while process.poll() is None and not self._unfinished() - old:
            time.sleep(POLL / 10)
        self._wait(process, self.random.uniform(0, 0.02))

    def _unfinished(self) -> set[Path]:
        return set(self.training.folder.glob("*.tmp"))


def equal_weights(one: Path, other: Path) -> bool:
    ours, theirs = (get_state_dict(read_checkpoint(path)) for path in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.work_dir.exists():
        shutil.rmtree(args.work_dir)
    training = Training(args, "killed")
    training.folder.mkdir(parents=True)
    killer, last, lost, most = Killer(training, args.seed), 0, [], 0
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
        most = max(most, len(list(training.folder.glob("*.pth"))))
        if path := latest_checkpoint(training.folder):
            read_checkpoint(path)
    training.finish()
    Training(args, "whole").finish()
    name = f"iter_{args.iters}.pth"
    same = equal_weights(training.folder / name, args.work_dir / "whole" / name)
    figures = dict(
        kills=args.kills, while_starting=killer.early, while_writing=killer.caught,
        most_lost=max(lost), interval=args.interval,
        checkpoints=most, leftovers=len(list(training.folder.glob("*.tmp"))), equal_weights=same,
    )  # fmt: skip
    (args.work_dir / "kills.json").write_text(json.dumps(figures, indent=2))
    print(json.dumps(figures, indent=2))
    if not same:
        raise SystemExit("the weights differ from those of a run that nobody killed")


if __name__ == "__main__":
    main()
