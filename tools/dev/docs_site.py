"""Hooks of the documentation site: the repository's own tree, and references in docstrings.

The site has the repository's paths, so that links work in the site and on a code host alike.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
SHOWN = (
    "*.md",
    "LICENSE",
    "CITATION.cff",
    "checkpoints/*.md",
    "docs/**/*",
    "configs/**/*.py",
    "tools/**/*",
    "tvit_seg/**/*.py",
)
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`(~?)([\w.]+)`")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the pages found by all that they may link to, under their paths."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    shown = sorted({path for pattern in SHOWN for path in ROOT.glob(pattern) if path.is_file()})
    return Files(
        theme
        + [
            File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path))
            for path in shown
            if not {"__pycache__", "theme"} & set(path.parts)
        ]
    )


class Roles(griffe.Extension):
    """Turns Sphinx roles in docstrings into links; what has no page of its own stays code."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for item in _objects(pkg):
            if item.docstring:
                item.docstring.value = ROLE.sub(
                    lambda match, item=item: _link(item, *match.groups()), item.docstring.value
                )


def _objects(parent: griffe.Object) -> Iterator[griffe.Object]:
    yield parent
    for member in parent.members.values():
        if not member.is_alias:
            yield from _objects(member)


def _link(item: griffe.Object, short: str, target: str) -> str:
    label = target.rpartition(".")[2] if short else target
    if target.startswith("tvit_seg."):
        return f"[`{label}`][{target}]"
    try:
        path = item.resolve(target)
    except griffe.NameResolutionError:
        return f"`{label}`"
    return f"<autoref optional identifier='{path}'><code>{label}</code></autoref>"
