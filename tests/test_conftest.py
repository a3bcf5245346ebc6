"""Whose warnings fail the tests, and what a quick run leaves out."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

THEIRS = """
import warnings

def old():
    warnings.warn("old() goes away", FutureWarning, stacklevel=2)

def leans_on_old():
    old()

def complains():
    warnings.warn("something is odd")
"""
OURS = """
import theirs

def calls_old():
    theirs.old()

def calls_what_leans_on_old():
    theirs.leans_on_old()

def makes_them_complain():
    theirs.complains()

def complains():
    import numpy
    numpy.log(numpy.zeros(1))
"""
CALLS = """
import pytest
from mingmoe_eval import ours

NAMES = [name for name in vars(ours) if "calls" in name or "complain" in name]

@pytest.mark.parametrize("name", NAMES)
def test_it(name):
    getattr(ours, name)()

def test_of_its_own():
    import warnings
    warnings.warn("so do tests", stacklevel=99)
"""


pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path):
    """Our conftest over a package, a library and tests that warn in every way."""
    for name, text in {
        "mingmoe_eval/__init__.py": "",
        "mingmoe_eval/ours.py": OURS,
        "elsewhere/theirs.py": THEIRS,
        "tests/test_calls.py": CALLS,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = default\nmarkers =\n slow\n browser\n"
    )
    return tmp_path


def run_tests(project, *options):
    """Its words, and the names of the tests that passed."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-rA", "tests", *options]
    found = os.pathsep.join(str(folder) for folder in (project, project / "elsewhere"))
    environment = {**os.environ, "PYTHONPATH": found}
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    passed = re.findall(r"^PASSED .*::(.*)", done.stdout, re.MULTILINE)
    return done.stdout, {*passed}


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_only_deprecations_in_the_files_of_others_pass(project, newest, parallel):
    said, passed = run_tests(project, *["--newest"] * newest, *["-n", "2"] * parallel)
    by_place = {"test_it[calls_old]"} if newest else set()
    assert passed == {"test_it[calls_what_leans_on_old]"} | by_place, said
    assert "theirs.py:8: FutureWarning: old() goes away" in said
    to_mend = said.partition("called by us: to be mended")[2].partition("short test summary")[0]
    assert ("ours.py:5: FutureWarning: old() goes away" in to_mend) == newest
    assert "theirs.py:8" not in to_mend


QUICK = """
import pytest

def test_alone():
    pass

def test_with_torch():
    import torch

@pytest.mark.slow
def test_slow():
    pass

@pytest.mark.browser
def test_browser():
    pass

def test_that_takes_long():
    for _ in range(10**8):
        pass
"""


def test_a_quick_run_needs_no_torch_and_says_what_takes_long(project):
    conftest = project / "tests" / "conftest.py"
    text = conftest.read_text("utf-8")
    conftest.write_text(re.sub("^QUICK_SECONDS = .*", "QUICK_SECONDS = 0.2", text, flags=re.M))
    (project / "tests" / "test_calls.py").write_text("from torch import nn\ndef test(): pass\n")
    (project / "tests" / "test_quick.py").write_text(QUICK)
    said, passed = run_tests(project, "--quick")
    assert passed == {"test_alone"}
    assert "1 failed, 1 passed, 2 skipped, 2 deselected" in said
    assert "s of computing: mark it slow" in said
