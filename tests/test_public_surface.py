"""The public surface: what is importable is what docs/python.md shows, and its program runs."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mingmoe_eval

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def names_imported(source, module="mingmoe_eval"):
    return {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module == module
        for alias in node.names
    }


def test_what_is_importable_is_what_the_page_shows():
    assert names_imported("\n".join(BLOCKS)) == set(mingmoe_eval.__all__)


@pytest.mark.parametrize("package", ["", ".engine", ".molora", ".training"])
def test_every_public_name_is_there_and_type_checkers_see_the_same_ones(package):
    module = importlib.import_module(f"mingmoe_eval{package}")
    for name in module.__all__:
        assert getattr(module, name) is not None
    (for_checkers,) = (
        node
        for node in ast.parse(Path(module.__file__).read_text("utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {alias.name for node in for_checkers.body for alias in node.names}
    assert seen == set(module.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'mingmoe_eval' has no attribute 'evalute'"):
        mingmoe_eval.evalute  # noqa: B018


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "mingmoe_eval" / "py.typed").is_file()


def test_importing_the_package_imports_none_of_the_heavy_libraries():
    heavy = ("torch", "transformers", "lm_eval", "datasets", "pandas", "numpy")
    code = f"import sys, mingmoe_eval; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_the_page_is_a_program_that_runs_and_whose_libraries_keep_quiet(tmp_path):
    program = tmp_path / "page.py"
    program.write_text("\n".join(BLOCKS), "utf-8")
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "MINGMOE_EVAL_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "comparison.html").is_file()
