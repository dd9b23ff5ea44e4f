"""Results of a pass over data, written as they come, so that a pass that ends early goes on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class PassRecord:
    """File of JSON lines: first everything that results depend on, then the result of each image.

    Args:
        folder: Where the file lies; its name is a hash of the facts.
        facts: Everything that results depend on, such as model, weights and data.
    """

    def __init__(self, folder: str | Path, facts: Mapping[str, Any]):
        self.folder = Path(folder)
        self.facts = dict(facts)
        self._header = json.dumps(self.facts, sort_keys=True, default=str) + "\n"
        digest = hashlib.sha256(self._header.encode()).hexdigest()[:16]
        self.path = self.folder / f"{digest}.jsonl"
        self._parts: list[PassRecord] = []

    def part(self, **facts: Any) -> "PassRecord":
        """Record of a part of the work, such as one process's."""
        self._parts.append(PassRecord(self.folder, {**self.facts, **facts}))
        return self._parts[-1]

    def read(self) -> list[dict]:
        """Read what an earlier pass has written; a line that it did not finish is dropped."""
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        if lines[:1] != [self._header]:
            return []
        return [json.loads(line) for line in lines[1:] if line.endswith("\n")]

    def start(self, results: Iterable[dict]) -> None:
        """Write the file anew, with results that are known already."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(self._header)
        self.add(results)

    def add(self, results: Iterable[dict]) -> None:
        """Append results."""
        with self.path.open("a") as file:
            file.writelines(json.dumps(result) + "\n" for result in results)

    def remove(self) -> None:
        """Remove the file and those of its parts, after their results have been used."""
        for part in self._parts:
            part.remove()
        self.path.unlink(missing_ok=True)
