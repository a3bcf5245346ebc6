"""`python -m mingmoe_eval` is `mingmoe-eval`."""

from mingmoe_eval.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
