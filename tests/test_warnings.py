"""Whose warnings fail the tests: this project's always, a deprecation in somebody else's never."""

import os
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
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = default\n")
    return tmp_path


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_only_deprecations_in_the_files_of_others_pass(project, newest, parallel):
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rA", "tests"]
    command += ["--newest"] * newest + ["-n", "2"] * parallel
    found = os.pathsep.join(str(folder) for folder in (project, project / "elsewhere"))
    environment = {**os.environ, "PYTHONPATH": found}
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    passed = {line.split("::")[1] for line in done.stdout.splitlines() if line[:6] == "PASSED"}
    by_place = {"test_it[calls_old]"} if newest else set()
    assert passed == {"test_it[calls_what_leans_on_old]"} | by_place, done.stdout
    assert "theirs.py:8: FutureWarning: old() goes away" in done.stdout
    to_mend = done.stdout.partition("called by us: to be mended")[2]
    assert ("ours.py:5: FutureWarning: old() goes away" in to_mend) == newest
    assert "theirs.py" not in to_mend
