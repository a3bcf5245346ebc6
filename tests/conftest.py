"""What holds for every test: threads, no internet, whose warnings fail, hypothesis' profiles."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

# The workers share the cores, and tiny tensors gain nothing from threads. Before torch is imported,
# here and in every process that a test starts.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test needs the internet; without this, lm-eval and transformers look for it again and again.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The same tries in every plain run, new and many ones in `make soak`.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("soak", max_examples=20_000, deadline=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).parents[1]
# Not ROOT as a whole: .venv lies in it.
OURS = tuple(str(ROOT / part) + os.sep for part in ("mingmoe_eval", "tasks", "tests", "tools"))
OURS += (str(ROOT / "benchmarks") + os.sep,)
QUICK_SECONDS = 8.0  # far above what an unmarked test takes, also on a slow machine
DEPRECATIONS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--newest",
        action="store_true",
        help="the libraries are newer than the pinned ones: list what they deprecate of what we "
        "call, and do not fail",
    )
    parser.addoption(
        "--quick",
        action="store_true",
        help="leave out what is marked slow or browser, and whatever imports torch: that alone "
        "takes longer than most tests",
    )


class NoTorch:
    """Skips the file or the test that imports torch, or a library that does."""

    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers", "peft", "accelerate"):
            raise pytest.skip.Exception(f"quick: needs {name}", allow_module_level=True)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick"):
        sys.meta_path.insert(0, NoTorch())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        slow = [item for item in items if {"slow", "browser"} & {*item.keywords}]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Keep quick runs quick: what takes long says so."""
    before = sum(os.times()[:4])  # of the processor, also in processes that the test started
    result = yield
    used = sum(os.times()[:4]) - before
    if item.config.getoption("--quick") and used > QUICK_SECONDS:
        pytest.fail(f"{used:.0f} s of computing: mark it slow", pytrace=False)
    return result


@contextmanager
def judged(config: pytest.Config) -> Iterator[None]:
    """Every warning is an error where it comes up, but deprecations in somebody else's files.

    Those cannot be mended here, and a filter by module would miss who imports a deprecated thing by
    another name: a warning is of the file that it points at. With `--newest`, deprecations that
    point at a line of ours pass too, and `pytest_terminal_summary` asks to mend them.
    """
    kept = warnings.showwarning  # pytest's, which lists at the end of the run

    def judge(message, category, filename, lineno, file=None, line=None):
        deprecation = issubclass(category, DEPRECATIONS) or "Deprecat" in category.__name__
        ours = filename.startswith(OURS)
        if not deprecation or (ours and not config.getoption("--newest")):
            raise message
        kept(message, category, filename, lineno, file, line)

    warnings.showwarning = judge
    try:
        yield
    finally:
        warnings.showwarning = kept


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    with judged(session.config):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with judged(item.config):
        return (yield)


def pytest_terminal_summary(terminalreporter) -> None:
    """What pytest's own summary lists among the others, once more by itself."""
    seen = [report.message for report in terminalreporter.stats.get("warnings", ())]
    if ours := sorted({text.strip() for text in seen if text.startswith(OURS)}):
        terminalreporter.section("deprecated, and called by us: to be mended", yellow=True)
        for text in ours:
            terminalreporter.line(text)
