"""`python run_eval.py ...` is `mingmoe-eval ...`, for use from a checkout."""

from mingmoe_eval.__main__ import command

if __name__ == "__main__":
    raise SystemExit(command())
