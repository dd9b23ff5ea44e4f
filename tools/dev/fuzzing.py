"""What the fuzzers share: every case in a process of its own, with limits, and a table of outcomes.

A case is good if it ends in a right result or in one clear error. All else is bad.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from prettytable import PrettyTable
from tqdm import tqdm

GOOD = {"right": "a right result", "refused": "one clear error"}
BAD = {
    "silent": "a right-looking result that passes over the change, or is not finite",
    "unclear": "an error that does not say what is wrong",
    "crash": "the process died",
    "hang": "longer than the time limit",
    "memory": "more than the memory limit",
}
torch.set_num_threads(1)  # a forked process lacks the other threads of the one it came from

Verdict = tuple[str, str]
"""A key of GOOD or BAD, and a message."""


@dataclass
class Outcome:
    """What became of one case."""

    case: str
    kind: str
    message: str
    seconds: float


def attempt(case: str, work: Callable[[], Verdict], seconds: float, megabytes: int) -> Outcome:
    """Runs ``work`` in a process of its own, which has so much time and further address space."""
    start = time.monotonic()
    kind, message = isolated(work, seconds, megabytes)
    return Outcome(case, kind, message, time.monotonic() - start)


def isolated(work: Callable[[], Any], seconds: float, megabytes: int) -> Any:
    """What ``work`` returns in a process of its own, or a verdict if it does not come to that."""
    fork = multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)
    process = fork.Process(target=_in_child, args=(work, writer, megabytes))
    process.start()
    writer.close()
    try:
        result = reader.recv() if reader.poll(seconds) else ("hang", f"no end in {seconds:.0f} s")
    except EOFError:
        process.join()
        result = "crash", f"exit code {process.exitcode}"
    if process.is_alive():
        process.kill()
    process.join()
    return result


def _in_child(work: Callable[[], Any], writer: Connection, megabytes: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        result = work()
    except MemoryError as error:
        result = "memory", f"MemoryError {error}"
    except Exception as error:
        result = "unclear", f"{type(error).__name__}: {error}"
    writer.send(result)
    writer.close()
    os._exit(0)  # no exit handlers of the process that this one was forked from


def add_limits(parser: argparse.ArgumentParser, cases: int) -> None:
    """Adds what both fuzzers are told on the command line."""
    parser.add_argument("--cases", type=int, default=cases, help=f"how many ({cases})")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (0)")
    parser.add_argument("--seconds", type=float, default=120, help="limit for a case (120)")
    parser.add_argument("--megabytes", type=int, default=4000, help="limit for a case (4000)")
    parser.add_argument("--only", type=int, metavar="N", help="just case N, with its traceback")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all outcomes go there")


def run_all(
    cases: Iterable[tuple[str, Callable[[], Verdict]]], args: argparse.Namespace, what: str
) -> list[Outcome]:
    """Runs all cases one after the other."""
    cases = list(cases)
    if args.only is not None:
        case, work = cases[args.only]
        print(case)
        print(*work())
        sys.exit()
    outcomes = []
    for case, work in tqdm(cases, desc=what, file=sys.stderr):
        outcomes.append(attempt(case, work, args.seconds, args.megabytes))
        if outcomes[-1].kind in BAD:
            tqdm.write(f"{len(outcomes) - 1}: {case}: {outcomes[-1].kind}: {outcomes[-1].message}")
    return outcomes


def bad(outcomes: list[Outcome]) -> list[Outcome]:
    """Those that must not be."""
    return [outcome for outcome in outcomes if outcome.kind in BAD]


def report(outcomes: list[Outcome], path: Path | None) -> int:
    """Prints a table, writes JSON, and returns the exit status: 1 if there is a bad outcome."""
    counts = Counter(outcome.kind for outcome in outcomes)
    table = PrettyTable(["outcome", "meaning", "cases"], align="l")
    for kind, meaning in {**GOOD, **BAD}.items():
        table.add_row([kind, meaning, counts[kind]])
    print(table)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        record = dict(counts=counts, outcomes=[asdict(outcome) for outcome in outcomes])
        path.write_text(json.dumps(record, indent=2))
    return int(bool(bad(outcomes)))
