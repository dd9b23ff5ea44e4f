"""Count what makes the package large or hard to read, at an earlier commit and now."""

import argparse
import ast
import io
import subprocess
import tarfile
import tokenize
from pathlib import PurePosixPath

from prettytable import PrettyTable, TableStyle

SKIPPED = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
QUESTIONS = ("What", "Who", "Whose", "Where", "Whether", "How")


def sources(revision: str) -> dict[PurePosixPath, str]:
    """Python files of a commit; of the index for an empty name."""
    tree = revision or subprocess.check_output(["git", "write-tree"], text=True).strip()
    with tarfile.open(fileobj=io.BytesIO(subprocess.check_output(["git", "archive", tree]))) as tar:
        files = [member for member in tar if member.isfile() and member.name.endswith(".py")]
        return {PurePosixPath(f.name): tar.extractfile(f).read().decode() for f in files}


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code: no blanks, comments or docstrings."""
    docs = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {
        line for t in tokens if t.type not in SKIPPED for line in range(t.start[0], t.end[0] + 1)
    }
    return lines - docs


def figures(revision: str) -> dict[str, float]:
    """All figures of a commit."""
    files = sources(revision)
    package = {path: text for path, text in files.items() if path.parts[0] == "tvit_seg"}
    nodes = [node for text in package.values() for node in ast.walk(ast.parse(text))]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, documented)]
    code = sum(len(code_lines(text)) for text in package.values())

    def lines(*folder: str) -> int:
        inside = (text for path, text in files.items() if path.parts[: len(folder)] == folder)
        return sum(text.count("\n") for text in inside)

    return {
        "lines in tvit_seg/": lines("tvit_seg"),
        "files on the first screen": sum(len(path.parts) == 2 for path in package),
        "folders on the first screen": len({p.parts[1] for p in package if len(p.parts) > 2}),
        "lines in tests/": lines("tests"),
        "lines in tools/dev/": lines("tools", "dev"),
        "code lines in tvit_seg/": code,
        "raise per 100 code lines": round(
            100 * sum(isinstance(node, ast.Raise) for node in nodes) / code, 1
        ),
        "docstrings opening with What / Who / Where / Whether / How": sum(
            text.split(maxsplit=1)[0].strip(",.:") in QUESTIONS for text in docstrings if text
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", help="the earlier commit; it is compared with the index")
    args = parser.parse_args()
    before, after = figures(args.revision), figures("")
    table = PrettyTable(["", args.revision, "now"])
    table.set_style(TableStyle.MARKDOWN)
    table.add_rows([[name, before[name], after[name]] for name in before])
    print(table)


if __name__ == "__main__":
    main()
