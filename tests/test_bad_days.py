"""The machine's bad days: every verb under each of them, and the table of docs/reliability.md.

Whatever happens, a verb ends with a documented exit status and with one message at most; nothing is
half-written or left over, what was there before is as it was, and the same command goes on, or says
what to do. Run as a program, this file tries every verb on every day, in interpreters that start
anew, and writes the table; `make test` tries a part of it, in processes that are warm already.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from bad_day_process import NOBODY, NOWHERE
from bad_day_verbs import COMMANDS, fill, is_whole, spoken

from mingmoe_eval.cli import VERBS

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "reliability.md"
ROOT = os.name == "posix" and os.getuid() == 0

CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
long clock_shift = 0;
__attribute__((constructor)) static void begin(void) {
  const char *shift = getenv("CLOCK_SHIFT");
  if (shift) clock_shift = atol(shift);
}
int clock_gettime(clockid_t id, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(id, t);
  if (id == CLOCK_REALTIME) t->tv_sec += clock_shift;
  return status;
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One bad day: what it does to a command, and how that may end."""

    says: str
    """What the table calls it."""
    process: str = "good"
    """What happens to the process: one of `bad_day_process.DAYS`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    place: str = "work"
    name: str = "outcome"
    encoding: str = "utf-8"
    clock: int | None = None
    """The year."""
    folder: str = ""
    """What is wrong with the folder that is written to: full, foreign, gone."""
    kitchen: str = ""
    signals: tuple[int, ...] = ()
    """What comes at each of three moments."""
    ends: frozenset[int] = frozenset({0})
    """The exit statuses that are right."""
    root: bool = False
    """Only root can make such a day."""

    @property
    def varies(self) -> bool:
        """Whether the moment, or how much the machine has, decides how a command ends."""
        scarce = ("16 files", "32 files", "64 MB", "512 MB")
        return bool(self.signals) or self.folder == "removed" or self.process in scarce


STOPPED = frozenset({0, 2})
DAYS = {
    day.says: day
    for day in (
        Day(says="stdout is closed", process="stdout closed"),
        Day(says="stderr is closed", process="stderr closed"),
        Day(says="stdin is closed", process="stdin closed"),
        Day(says="all three are closed", process="all closed"),
        Day(says="stdout is `/dev/full`", process="stdout full", ends=STOPPED),
        Day(says="stderr is `/dev/full`", process="stderr full"),
        Day(says="stdout goes to `head -1`", process="head"),
        Day(
            says="`LC_ALL=C` without UTF-8, Chinese paths and names",
            environment={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            place="医学 考试",
            name="结果",
            encoding="ascii",
            ends=STOPPED,
        ),
        Day(
            says="`LC_ALL=C`, Chinese paths and names",
            environment={"LC_ALL": "C"},
            place="医学 考试",
            name="结果",
        ),
        Day(says="a name of 256 bytes", name="n" * 256, ends=STOPPED),
        Day(
            says="an output folder that cannot be written",
            process="a user",
            folder="read-only",
            ends=STOPPED,
            root=True,
        ),
        Day(
            says="another user's output folder",
            process="a user",
            folder="foreign",
            ends=STOPPED,
            root=True,
        ),
        Day(
            says="another user's input",
            process="a user",
            kitchen="foreign",
            ends=STOPPED,
            root=True,
        ),
        Day(says="a disk of 16 KB", folder="small", ends=STOPPED, root=True),
        Day(says="files of at most 1,000 bytes", process="file sizes", ends=STOPPED),
        Day(says="16 open files", process="16 files", ends=STOPPED),
        Day(says="32 open files", process="32 files", ends=STOPPED),
        Day(says="512 MB of address space left", process="512 MB", ends=STOPPED),
        Day(says="64 MB of address space left", process="64 MB", ends=STOPPED),
        Day(
            says="no `HOME`, and no entry in passwd",
            process="no home",
            environment={"MINGMOE_EVAL_CACHE": "", "XDG_CACHE_HOME": ""},
            ends=STOPPED,
            root=True,
        ),
        Day(
            says="`HOME` and `TMPDIR` that cannot be written",
            environment={
                "MINGMOE_EVAL_CACHE": "",
                "XDG_CACHE_HOME": "",
                "HOME": NOWHERE,
                "TMPDIR": NOWHERE,
                "HF_HOME": NOWHERE,
            },
            ends=STOPPED,
        ),
        Day(
            says="no network, not even loopback",
            process="no network",
            environment={"HF_HUB_OFFLINE": "0"},
            root=True,
        ),
        Day(says="the clock in 1970", clock=1970),
        Day(says="the clock in 2040", clock=2040),
        Day(says="a working folder that has gone", process="no folder", folder="gone"),
        Day(says="the output folder removed in between", folder="removed", ends=STOPPED),
        Day(says="SIGPIPE", signals=(13,)),
        Day(says="Ctrl-C", signals=(2,), ends=frozenset({0, 130})),
        Day(says="Ctrl-C twice", signals=(2, 2), ends=frozenset({0, 130})),
        # -15 where it comes before anything of ours has begun: 143 in a shell, too.
        Day(says="SIGTERM", signals=(15,), ends=frozenset({0, 143, -15})),
        Day(says="`kill -9`", signals=(9,), ends=frozenset({0, -9})),
    )
}
HEAD = "| what happens | exit status |\n|---|---|\n"
QUICK = [verb for verb in COMMANDS if verb != "demo"]
"""`demo` is two runs and a copy, and takes as long as all others."""
KEPT_BESIDE = "thought_budgets.json"
"""What `budget` writes beside the run that it reads."""
MOMENTS = (0.15, 0.5, 0.85)
"""When a signal comes, in parts of the time that the command takes by itself."""


class Processes:
    """Starts commands; see `bad_day_process`."""

    def __init__(self, *, warm: bool, library: Path | None) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            **({"LD_PRELOAD": str(library)} if library else {}),
        }
        self.has_clock = library is not None
        self._process = subprocess.Popen(
            [sys.executable, HERE / "bad_day_process.py", "warm" if warm else "anew"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def live(self, words: list[str], **more: Any) -> dict[str, Any]:
        request = {
            "words": words,
            "day": "good",
            "environment": {},
            "folder": "/",
            "gone": "",
            "clock": 0,
            "encoding": "utf-8",
            "signals": [],
            "removed": [],
            **more,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@dataclass(slots=True)
class Good:
    """What a command does on a good day."""

    status: int
    seconds: float
    has_stdout: bool
    outcome: dict[str, Any]


@dataclass(slots=True)
class World:
    """What the tries have in common: the processes, the commands' input, their good days."""

    processes: Processes
    root: Path
    kitchen: Path
    good: dict[str, Good] = field(default_factory=dict)

    def good_day(self, verb: str) -> Good:
        if verb not in self.good:
            with self.place(DAYS["SIGPIPE"]) as place:
                done = self.call(verb, place, DAYS["SIGPIPE"])
                assert done["status"] == 0, (verb, done)
                found = outcome(place / "out")
            self.good[verb] = Good(0, done["seconds"], bool(done["out"]), found)
        return self.good[verb]

    @contextmanager
    def place(self, day: Day) -> Iterator[Path]:
        """A folder for one try: `out` to be written to, and `cache`, `tmp`, `home`, `start`."""
        place = Path(tempfile.mkdtemp(dir=self.root)) / day.place
        place.parent.chmod(0o755)
        for name in ("out", "cache", "tmp", "home", "start"):
            (place / name).mkdir(parents=True)
            if day.process == "no home":
                os.chown(place / name, NOBODY, NOBODY)
        out = place / "out"
        small = day.folder == "small"
        if small:
            mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(out)]
            subprocess.run(mount, check=True)
        if day.folder == "foreign":
            os.chown(out, NOBODY, NOBODY)
        if day.folder in ("read-only", "foreign"):
            out.chmod(0o500)
        try:
            yield place
        finally:
            if small:
                subprocess.run(["umount", str(out)], check=True)
            shutil.rmtree(place.parent, ignore_errors=True)

    def call(self, verb: str, place: Path, day: Day, at: float | None = None, **more: Any) -> Any:
        """The verb's command in a place, with what a day is like; `at`: when something happens."""
        kitchen = self.kitchen
        if day.kitchen == "foreign":
            kitchen = kitchen.with_name("foreign")
        words = more.pop("words", None) or spoken(COMMANDS[verb], kitchen, place / "out", day.name)
        environment = {
            "MINGMOE_EVAL_CACHE": str(place / "cache"),
            "HOME": str(place / "home"),
            "TMPDIR": str(place / "tmp"),
            **day.environment,
        }
        shift = 0
        if day.clock is not None:
            shift = int((day.clock - 1970) * 31_557_600 - time.time()) + 100
            environment["CLOCK_SHIFT"] = str(shift)
        moment = 0.0 if at is None else at * self.good[verb].seconds
        return self.processes.live(
            words,
            day=day.process,
            environment=environment,
            folder=str(place / "start"),
            gone=str(place / "start"),
            clock=shift,
            encoding=day.encoding,
            # The second Ctrl-C of somebody who is impatient.
            signals=[(moment + 0.05 * n, s) for n, s in enumerate(day.signals)] if at else [],
            removed=[(moment, str(place / "out"))] if at and day.folder == "removed" else [],
            **more,
        )


def outcome(folder: Path) -> dict[str, Any]:
    """What a command left: the names of its files, and the results and weights in them."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_dir():
            continue
        name = re.sub(
            r"\d{4}-?\d\d-?\d\d[-T]\d\d-?\d\d-?\d\d", "TIME", str(path.relative_to(folder))
        )
        name = re.sub(r"n{200,}|结果", "outcome", name)
        name = re.sub(r"[+.]\d\d-?\d\d|\d{6,}", "", name)
        found[name] = None
        if path.name == "run.json":
            run = json.loads(path.read_text("utf-8"))
            found[name] = {"results": run["results"], "counts": run["counts"]}
        elif path.suffix == ".safetensors" or path.parent.name == "samples":
            found[name] = path.read_bytes()
    return found


def faults_of(done: Mapping[str, Any], day: Day, good: Good, place: Path) -> list[str]:
    """What is wrong with how a command ended."""
    status, said = done["status"], done["err"]
    faults = []
    if status not in day.ends:
        faults.append(f"status {status}")
    if "Traceback" in said + done["out"] or "a bug in mingmoe-eval" in said:
        faults.append("a traceback")
    if "Exception ignored" in said or "Fatal Python error" in said:
        faults.append("words of the interpreter")
    errors = len(re.findall(r"^(?:error:|Error:)", said, re.MULTILINE))
    if errors > 1:
        faults.append(f"{errors} messages")
    can_talk = day.process not in ("stderr closed", "all closed", "stderr full")
    if status == 2 and not errors and can_talk:
        faults.append("no message")
    if status == 0 and day.folder not in ("removed", "gone"):
        names = outcome(place / "out").keys()
        if names != good.outcome.keys():
            faults.append(f"other files: {sorted(names ^ good.outcome.keys())[:6]}")
    faults += leftovers(place, killed=status < 0)
    return faults


def leftovers(place: Path, *, killed: bool) -> list[str]:
    """Files that are not whole; of one that was not killed, also what should have gone."""
    files = [path for path in place.rglob("*") if path.is_file()]
    ours = [path for path in files if not path.name.startswith((".", "responses.sqlite"))]
    ours = [path for path in ours if (place / "out") in path.parents]
    found = [f"half-written: {path.name[-40:]}" for path in ours if not is_whole(path)]
    if not killed:
        hidden = [path for path in files if path.name.startswith(".") or path.suffix == ".tmp"]
        hidden += [path for path in files if (place / "tmp") in path.parents]
        hidden = [path for path in hidden if (place / "home") not in path.parents]
        found += [f"left over: {path.relative_to(place)}" for path in hidden]
    return found


def goes_on(world: World, verb: str, place: Path, day: Day) -> list[str]:
    """The same command on a good day, in the same place; or what it then says to do."""
    plain = Day(says="", place=day.place, name=day.name)
    words = None
    for _ in range(2):
        done = world.call(verb, place, plain, words=words)
        if done["status"] != 2:
            break
        words = _advice(done["err"], spoken(COMMANDS[verb], world.kitchen, place / "out", day.name))
        if words is None:
            if outcome(place / "out") == world.good_day(verb).outcome:
                return []  # it was done before, and says so
            return [f"again: no way out of {done['err'][-300:]!r}"]
        if not words:
            shutil.rmtree(place / "out")
            (place / "out").mkdir()
            words = None
    faults = [f"again: {fault}" for fault in leftovers(place, killed=False)]
    if done["status"] != 0:
        return [*faults, f"again: status {done['status']}: {done['err'][-300:]}"]
    theirs, ours = outcome(place / "out"), world.good_day(verb).outcome
    if theirs.keys() != ours.keys() and verb != "demo":
        faults.append(f"again: other files: {sorted(theirs.keys() ^ ours.keys())[:6]}")
    changed = [name for name in theirs if name in ours and theirs[name] != ours[name]]
    return faults + [f"again: {name} differs" for name in changed]


def _advice(said: str, words: list[str]) -> list[str] | None:
    """The command that a message tells to use; empty: another place; None: it tells nothing."""
    if found := re.search(r"`(?:mingmoe-eval run )?--resume ([^`]+)`", said):
        return ["run", "--resume", *shlex.split(found[1])]
    if "--resume last" in said:
        return [*words, "--resume", "last"]
    if re.search(r"choose another|in another|remove", said):
        return []
    return None


@dataclass(slots=True)
class Cell:
    """How a verb ended on a day: its statuses, and what was wrong."""

    statuses: list[int]
    faults: list[str]


def try_out(world: World, verb: str, says: str) -> Cell:
    """One verb on one bad day."""
    day, good = DAYS[says], world.good_day(verb)
    before = _stamps(world.kitchen)
    timed = day.signals or day.folder == "removed"
    cell = Cell([], [])
    for at in MOMENTS if timed else (None,):
        with world.place(day) as place:
            done = world.call(verb, place, day, at)
            cell.statuses.append(done["status"])
            cell.faults += faults_of(done, day, good, place)
            if cell.faults:
                print(done["err"][-3000:])
            if day.signals and done["status"] != 0:
                cell.faults += goes_on(world, verb, place, day)
    changed = {path.name for path, _ in before.items() ^ _stamps(world.kitchen).items()}
    cell.faults += [f"changed, and was there before: {name}" for name in sorted(changed)]
    return cell


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.name != KEPT_BESIDE)
    stats = {path: path.stat() for path in files if path.is_file()}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


@contextmanager
def a_world(*, warm: bool) -> Iterator[World]:
    root = Path(tempfile.mkdtemp(prefix="bad-days-"))
    root.chmod(0o755)
    library = None
    if shutil.which("gcc"):
        (root / "clock.c").write_text(CLOCK)
        library = root / "clock.so"
        compile_it = ["gcc", "-shared", "-fPIC", "-o", library, root / "clock.c", "-ldl"]
        subprocess.run(compile_it, check=True)
    processes = Processes(warm=warm, library=library)
    kitchen = root / "kitchen"
    kitchen.mkdir()

    def call(words: list[str]) -> None:
        words = spoken(" ".join(words), kitchen, kitchen, "")
        environment = {"MINGMOE_EVAL_CACHE": str(root / "cache")}
        done = processes.live(words, environment=environment)
        assert done["status"] == 0, (words, done)

    try:
        fill(kitchen, call)
        shutil.copytree(kitchen, root / "foreign")
        if ROOT:
            os.chown(root / "foreign", NOBODY, NOBODY)
        (root / "foreign").chmod(0o700)
        yield World(processes, root, kitchen)
    finally:
        processes.close()
        shutil.rmtree(root)


def outcome_of(day: Day, statuses: Mapping[str, list[int]]) -> str:
    """A row of the table: who does all, and who is stopped with one message and status 2."""
    if day.varies:
        as_a_shell_says = {128 - status if status < 0 else status for status in day.ends}
        shown = " or ".join(map(str, sorted(as_a_shell_says)))
        return f"| {day.says} | {shown} |"
    stopped = [verb for verb, seen in statuses.items() if 2 in seen]
    done = [verb for verb in statuses if verb not in stopped]
    if not stopped:
        return f"| {day.says} | 0 |"
    if len(stopped) <= len(done):
        return f"| {day.says} | 0; 2: {', '.join(stopped)} |"
    return f"| {day.says} | 2; 0: {', '.join(done) or 'none'} |"


def documented(day: Day, verb: str) -> int:
    """The status that the table gives a verb on a day that does not vary."""
    row = next(line for line in PAGE.read_text("utf-8").split("\n") if f"| {day.says} |" in line)
    usual, _, others = row.split("|")[2].strip().partition("; ")
    other, _, verbs = others.partition(": ")
    return int(other) if others and verb in verbs.split(", ") else int(usual)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    if sys.platform != "linux":
        pytest.skip("what a process is done to takes Linux")
    with a_world(warm=True) as made:
        yield made


def possible(world: World, day: Day) -> bool:
    return (ROOT or not day.root) and (world.processes.has_clock or day.clock is None)


def test_every_verb_has_a_command() -> None:
    verbs = {
        words
        for name, verb in VERBS.items()
        for words in ([f"{name} {below}" for below in verb.below] or [name])
    }
    assert set(COMMANDS) == verbs


SHARE = 8
"""One cell in so many is tried each time the tests run."""


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(DAYS)), ids=list(DAYS))
def test_some_verbs_on_each_bad_day(world: World, number: int) -> None:
    day = [*DAYS.values()][number]
    if not possible(world, day):
        pytest.skip("takes root, or gcc")
    verbs = [verb for place, verb in enumerate(QUICK) if (place + number) % SHARE == 0]
    cells = {verb: try_out(world, verb, day.says) for verb in verbs}
    assert {verb: cell.faults for verb, cell in cells.items() if cell.faults} == {}
    if not day.varies:
        told = {verb: [documented(day, verb)] for verb in verbs}
        assert {verb: cell.statuses for verb, cell in cells.items()} == told


@pytest.mark.soak
@pytest.mark.parametrize("says", DAYS)
def test_every_verb_on_each_bad_day(says: str) -> None:
    with a_world(warm=False) as world:
        if not possible(world, DAYS[says]):
            pytest.skip("takes root, or gcc")
        faults = {verb: try_out(world, verb, says).faults for verb in COMMANDS}
    assert {verb: found for verb, found in faults.items() if found} == {}


def main() -> None:
    """Try every verb on every day, or those that are named; write the table when all were tried.

    Each try is kept in `--results`, and not made again.
    """
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--anew", action="store_true", help="in interpreters that start anew")
    parser.add_argument("--verbs", default="")
    parser.add_argument("--days", default="")
    parser.add_argument("--results", type=Path, default=HERE.parent / "build" / "bad_days.jsonl")
    chosen = parser.parse_args()
    verbs = [v for v in COMMANDS if not chosen.verbs or v in chosen.verbs.split(",")]
    days = [d for d in DAYS if not chosen.days or re.search(chosen.days, d)]
    chosen.results.parent.mkdir(exist_ok=True)
    tried = _results(chosen.results)
    missing = [(d, v) for d in days for v in verbs if v not in tried.get(d, {})]
    if missing:
        with a_world(warm=not chosen.anew) as world, chosen.results.open("a") as file:
            for says, verb in missing:
                if possible(world, DAYS[says]):
                    cell = try_out(world, verb, says)
                    print(f"{says} | {verb} | {cell.statuses} | {cell.faults}", flush=True)
                    if not cell.faults:
                        file.write(json.dumps([says, verb, cell.statuses]) + "\n")
                        file.flush()
    tried = _results(chosen.results)
    lasting = [day.says for day in DAYS.values() if not day.varies]
    if all(verb in tried.get(says, {}) for says in lasting for verb in QUICK):
        rows = [
            outcome_of(day, {verb: tried.get(day.says, {}).get(verb, []) for verb in QUICK})
            for day in DAYS.values()
        ]
        text = PAGE.read_text("utf-8")
        begin, end = text.index(HEAD) + len(HEAD), text.index("\n\n", text.index(HEAD))
        PAGE.write_text(text[:begin] + "\n".join(rows) + text[end:], "utf-8")


def _results(path: Path) -> dict[str, dict[str, list[int]]]:
    found: dict[str, dict[str, list[int]]] = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        says, verb, statuses = json.loads(line)
        found.setdefault(says, {})[verb] = statuses
    return found


if __name__ == "__main__":
    main()
