"""Official scores of the published scorer: an invented set that travels with the project, and more.

Beside the checkout a folder `shared` may hold further sets; tests on those are skipped without it.
"""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent / "data" / "promptcblue"
SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "golden" / "promptcblue"

SETS = [HERE / "synthetic", SHARED / "synthetic", SHARED / "toy_train"]
VARIANTS = [
    pytest.param(variant, id=f"{folder.parent.name}-{folder.name}-{variant.name}")
    for folder in SETS
    if folder.is_dir()
    for variant in sorted((folder / "variants").iterdir())
]
absent = pytest.mark.skipif(not SHARED.is_dir(), reason="no folder `shared` beside the checkout")


def read_json(path):
    return json.loads(path.read_text("utf-8"))


def read_lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def write_lines(path, rows):
    text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
    path.write_text(text, "utf-8")
    return path
