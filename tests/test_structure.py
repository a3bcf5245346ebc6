"""The house: imports run one way, light verbs stay light, tasks/ is no package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from mingmoe_eval.cli import VERBS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mingmoe_eval"

# From the bottom up; a module may import its own layer's package and anything below.
LAYERS = [
    [
        "data_sources",
        "errors",
        "extras",
        "generation_protocol",
        "hub",
        "json_files",
        "labels",
        "language_model",
        "lazy_names",
        "library_noise",
        "locations",
        "record_files",
        "records",
        "whole_files",
        "yaml_files",
    ],
    ["metrics", "molora.config", "molora.layers", "molora.router"],
    ["molora", "promptcblue", "exams", "published", "routing", "suites"],
    [
        "cblue_conversion",
        "comparison",
        "cost",
        "engine",
        "foreign_logs",
        "harness",
        "pass_rules",
        "provenance",
        "repeats",
        "run_loading",
        "run_store",
        "scoring",
        "task_catalog",
        "task_definitions",
        "workers",
    ],
    [
        "ablation",
        "blame",
        "asking",
        "evaluation",
        "model_opening",
        "questions",
        "overlap",
        "paper_table",
        "regression_gate",
        "report",
        "elsewhere",
        "reply_room",
        "explanation",
        "rescoring",
        "thought_budgets",
        "task_check",
        "training",
        "vllm",
    ],
    ["cli", "demo", "__init__", "__main__"],
]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def layer_of(module: str) -> int:
    """The layer that names the longest prefix of the module."""
    matches = [
        (len(name), level)
        for level, names in enumerate(LAYERS)
        for name in names
        if module == name or module.startswith(name + ".")
    ]
    assert matches, f"{module} is in no layer: give it a place in LAYERS"
    return max(matches)[1]


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_modules(names: set[str]) -> set[str]:
    known = {module_name(path) for path in PACKAGE.rglob("*.py")}
    own = {name.removeprefix("mingmoe_eval.") for name in names if name.startswith("mingmoe_eval.")}
    return own & known


WITHOUT_MODELS = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "peft", "accelerate"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
from mingmoe_eval.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if "_bundled" not in p.parts)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_run_one_way(path):
    here = module_name(path)
    above = {name for name in own_modules(imports_of(path)) if layer_of(name) > layer_of(here)}
    assert not above, f"{here} imports upwards: {sorted(above)}"


# Beside the core: an evaluation never needs them, so that nothing but the command line knows them.
BESIDE = ("overlap", "training", "vllm", "workers")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_the_core_knows_nothing_of_what_stands_beside_it(path):
    here = module_name(path).split(".")[0]
    if here == "cli":
        return
    # Imports inside of functions and of type checkers count: all are found by walking the tree.
    beside = {name for name in own_modules(imports_of(path)) if name.split(".")[0] in BESIDE}
    others = {name for name in beside if name.split(".")[0] != here}
    assert not others, f"{module_name(path)} imports {sorted(others)}"


@pytest.mark.parametrize("path", sorted((ROOT / "tasks").rglob("*.py")), ids=str)
def test_task_code_imports_only_data_metrics_and_suites(path):
    allowed = ("data_sources", "metrics", "promptcblue", "exams", "scoring", "records", "errors")
    own = own_modules(imports_of(path))
    assert all(name.split(".")[0] in allowed for name in own), sorted(own)


def test_a_run_without_torch_says_what_to_install(tmp_path):
    arguments = ["--tasks", "usmle", "--model", "x", "--sample", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MODELS, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "pip install 'accelerate>=" in done.stderr
    assert "'torch<" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_tasks_is_not_a_package():
    done = subprocess.run(
        [sys.executable, "-c", "import tasks"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "not a package" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["tasks"],
        *([*verb.split(), "--help"] for verb in VERBS),
    ],
    ids=" ".join,
)
def test_starts_without_torch_and_transformers(arguments):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MODELS, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def filled_in_commands(source):
    """What f-strings put behind "mingmoe-eval ", up to the end of the line or the backtick."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        inside = False
        for part in node.values:
            if isinstance(part, ast.Constant):
                _, begins, behind = part.value.rpartition("mingmoe-eval ")
                inside = (inside or bool(begins)) and not {"`", "\n"} & set(behind)
            elif inside and isinstance(part, ast.FormattedValue):
                yield ast.unparse(part.value)


def test_every_command_that_is_printed_can_be_pasted_into_a_shell():
    """Paths and names are quoted where they are filled in, or where the name for them is made."""
    unquoted = set()
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text()
        unquoted |= {
            (path.name, filled)
            for filled in filled_in_commands(source)
            if not filled.startswith("shlex.") and f"{filled} = shlex." not in source
        }
    assert unquoted == {
        # No command: the program's own name and version.
        *(("__init__.py", "name"), ("__init__.py", "__version__"), ("exits.py", "__version__")),
        *(("exits.py", "headline(error)"), ("run_loading.py", "SCHEMA_VERSION")),
        # Words of ours: a mode of reading, and a remark behind the command.
        *(("explain.py", "mode"), ("explain.py", "only")),
    }
