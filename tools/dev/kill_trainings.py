"""Kills a training at random moments, resumes it, and looks at what was lost.

Every round starts tools/train.py with --resume and sends SIGKILL after a random time, half of the
rounds while a checkpoint is being written. At the end the training runs to its end, and its weights
are compared with those of a run that nobody killed.
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


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="rounds (50)")
    parser.add_argument("--interval", type=int, default=3, help="iterations per checkpoint (3)")
    parser.add_argument("--iters", type=int, default=200, help="length of the training (200)")
    parser.add_argument("--data-root", type=Path, default=Path("data/scenes"), help="the scenes")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/kills"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    return parser.parse_args(argv)


class Training:
    """A short training of the quickstart in a folder of its own."""

    def __init__(self, args: argparse.Namespace, name: str):
        self.folder = args.work_dir / name
        self.interval = args.interval
        loader = "train_dataloader"
        self.command = [
            sys.executable, ROOT / "tools/train.py", CONFIG, "--work-dir", self.folder, "--resume",
            "--skip-data-check", "--cfg-options", f"train_cfg.max_iters={args.iters}",
            "train_cfg.val_interval=100000", f"{loader}.batch_size=2", f"{loader}.num_workers=0",
            f"{loader}.persistent_workers=False", f"{loader}.dataset.data_root={args.data_root}",
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
    """Those that a log names, with the one that training resumed at in front."""
    text = log.read_text()
    resumed = re.search(r"resumed epoch: \d+, iter: (\d+)", text)
    found = [int(i) for i in re.findall(r"Iter\(train\) \[ *(\d+)/", text)]
    return [int(resumed[1]) if resumed else 0, *found]


def kill(training: Training, log: Path, rng: random.Random, saving: bool) -> tuple[int, int, bool]:
    """One round.

    Returns:
        The iteration that the training resumed at, the last one it logged, and whether a checkpoint
        was being written when it was killed.
    """
    process = training.start(log)
    steps = rng.randint(1, 2 * training.interval)
    while process.poll() is None and len(iterations(log)) <= steps:
        time.sleep(POLL)
    deadline = time.monotonic() + rng.uniform(0, 0.5)
    while process.poll() is None and time.monotonic() < deadline + 5 * saving:
        if saving and any(training.folder.glob("*.tmp")):
            time.sleep(rng.uniform(0, 0.02))
            break
        time.sleep(POLL)
    process.kill()
    process.wait()
    caught = any(training.folder.glob("*.tmp"))
    seen = iterations(log)
    return seen[0], seen[-1], caught


def equal_weights(one: Path, other: Path) -> bool:
    ours, theirs = (get_state_dict(read_checkpoint(path)) for path in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.work_dir.exists():
        shutil.rmtree(args.work_dir)
    training, rng = Training(args, "killed"), random.Random(args.seed)
    training.folder.mkdir(parents=True)
    last, lost, caught, most = 0, [], 0, 0
    for i in tqdm(range(args.kills), desc="kills"):
        log = args.work_dir / f"{i}.log"
        resumed, reached, writing = kill(training, log, rng, saving=i % 2 == 1)
        if "Traceback" in log.read_text():
            raise SystemExit(f"round {i} fails, see {log}")
        lost.append(last - resumed)
        if not 0 <= lost[-1] <= args.interval:
            raise SystemExit(f"round {i} resumes at {resumed} after {last}, see {log}")
        caught += writing
        most = max(most, len(list(training.folder.glob("*.pth"))))
        last = reached
        path = latest_checkpoint(training.folder)
        if path:
            read_checkpoint(path)
    training.finish()
    Training(args, "whole").finish()
    name = f"iter_{args.iters}.pth"
    same = equal_weights(training.folder / name, args.work_dir / "whole" / name)
    figures = dict(
        kills=args.kills, while_writing=caught, most_lost=max(lost), interval=args.interval,
        checkpoints=most, leftovers=len(list(training.folder.glob("*.tmp"))), equal_weights=same,
    )  # fmt: skip
    (args.work_dir / "kills.json").write_text(json.dumps(figures, indent=2))
    print(json.dumps(figures, indent=2))
    if not same:
        raise SystemExit("the weights differ from those of a run that nobody killed")


if __name__ == "__main__":
    main()
