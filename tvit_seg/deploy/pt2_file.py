"""Graphs as files of ``torch.export``, and the host loop on them."""

import inspect
from collections.abc import Callable
from pathlib import Path

import torch
from torch.export import ExportedProgram

from .host import Arrays, ThinkingHost


def write_pt2(program: ExportedProgram, path: Path) -> None:
    """Writes a program; it takes and gives dicts of tensors.

    Args:
        program: What to write.
        path: The file, read by ``torch.export.load(path).module(check_guards=False)``: the checks
            that torch adds refuse a single image where a graph is for any size, though it is right.
    """
    torch.export.save(program, path)


class Pt2Host(ThinkingHost):
    """The host loop on files of ``torch.export``; arguments as there, which onnxruntime ignores."""

    def open(self, path: Path) -> Callable[[Arrays], Arrays]:
        program = torch.export.load(path)
        checks = "check_guards" in inspect.signature(program.module).parameters
        module = program.module(**({"check_guards": False} if checks else {}))
        names = self.manifest["inputs"][path.stem]

        @torch.no_grad()
        def run(arrays: Arrays) -> Arrays:
            found = module({name: torch.from_numpy(arrays[name]) for name in names})
            return {name: x.numpy() for name, x in found.items()}

        return run
