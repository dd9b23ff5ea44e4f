"""The order of the rooms: a module imports only from its own room and from lower ones."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "tvit_seg"
ORDER = [
    ("errors", "utils", "registry"),
    ("weights",),
    ("hub",),
    ("thinking",),
    ("models.layers", "models.joint_batch"),
    ("models.gates",),
    ("models.pruning",),
    ("models.backbones",),
    ("cost",),
    ("models",),  # decode heads, segmentors, classifiers, timm's models
    ("datasets",),
    ("evaluation",),
    ("visualization",),
    ("inference",),
    ("deploy",),
    ("engine",),
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def level(module):
    """Level of a dotted name below the package; the longest room that it starts with counts."""
    parts = module.split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((LEVEL[name] for name in names if name in LEVEL), None)


def imports(path):
    """(line, dotted name) of what a module imports of the package, type checking aside."""
    here = ["tvit_seg", *path.relative_to(PACKAGE).parent.parts]
    tree = ast.parse(path.read_text())
    unchecked = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node in unchecked:
            continue
        if node.level == 0:
            assert not node.module.startswith("tvit_seg"), f"{path}:{node.lineno} is not relative"
            continue
        base = here[: len(here) + 1 - node.level] + (node.module or "").split(".")
        for name in node.names:
            yield node.lineno, ".".join(filter(None, [*base[1:], name.name]))


def test_order():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        own = level(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
        if path == PACKAGE / "__init__.py" or own is None:
            continue
        for line, module in imports(path):
            if (level(module) or 0) > own:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_first_screen():
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert sum(path.is_file() for path in entries) <= 7
    assert sum(path.is_dir() for path in entries) <= 8
