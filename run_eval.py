"""`python run_eval.py ...` is `mingmoe-eval ...`, for use from a checkout."""

from mingmoe_eval.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
