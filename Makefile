# Each target works as the first command on a fresh machine: it makes .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test check bench soak docs debian-packages wheel clean

demo: $(READY)  ## evaluate a tiny base and a tiny MoLoRA on invented questions, offline
	$(BIN)/mingmoe-eval demo

test: $(READY)  ## all tests that a laptop can run; those that lack something say what they lack
	$(BIN)/python -m pytest

check: $(READY)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## side-by-side measurements; results go to benchmarks/README.md by hand
	$(BIN)/python -m benchmarks

soak: $(READY)  ## long property, kill and fuzz runs
	$(BIN)/python -m pytest -m soak --hypothesis-profile=soak

debian-packages:  ## what the browser and LaTeX tests need; without it those tests skip
	apt-get update -q
	apt-get install -q -y --no-install-recommends chromium fonts-noto-cjk \
	  texlive-latex-recommended texlive-xetex texlive-lang-chinese

docs: $(READY)  ## docs/cli.md from --help
	$(BIN)/python tests/test_docs.py

wheel: $(READY)
	$(BIN)/python -m build --wheel

clean:
	rm -rf .venv dist demo

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); \
	  sys.exit(0 if ok else "mingmoe-eval needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[hf,dev]'
	@touch $@
