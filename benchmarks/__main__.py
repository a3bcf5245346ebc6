"""All benchmarks, one after the other: `python -m benchmarks [--quick]` (`make bench`).

Each is a process of its own, prints its own figures, and can be run alone. Nothing else should run
on the machine meanwhile. `python -m benchmarks.claims` is apart: it trains for many minutes, and
measures no time.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# The script, and what it is called with besides --quick where it knows that.
SCRIPTS: dict[str, tuple[list[str], list[str]]] = {
    "scoring.py": ([], ["--quick"]),
    "generation.py": ([], ["--quick"]),
    "memory.py": ([], ["--quick"]),
    "overhead.py": ([], ["--quick"]),
    "harness.py": ([], ["--quick"]),
    "resume.py": ([], ["--quick"]),
    "workers.py": ([], ["--quick"]),
    "molora_ffn.py": ([], ["--quick"]),
    "training_speed.py": ([], ["--quick"]),
    "score_promptcblue.py": (["--slow"], []),
    "regression_gate.py": ([], ["--trials", "400"]),
    "intervals.py": ([], ["--trials", "100"]),
    "overlap.py": ([], ["--records", "30000", "--items", "3000"]),
}


def main() -> int:
    quick = "--quick" in sys.argv[1:]
    failed = []
    for script, (always, when_quick) in SCRIPTS.items():
        command = [sys.executable, str(HERE / script), *always, *(when_quick if quick else [])]
        print(f"\n== {script}", flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(script)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    raise SystemExit(main())
