"""`python -m mingmoe_eval` is `mingmoe-eval`; the installed command starts here too."""

import sys


def command() -> int:
    """The command, quiet also where Ctrl-C comes before it has begun."""
    try:
        from mingmoe_eval.cli import main
    except KeyboardInterrupt:
        return 130
    return main()


if __name__ == "__main__":
    sys.exit(command())
