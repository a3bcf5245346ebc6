# Each target works as the first command on a fresh machine: it makes .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TOOLS := build/tools/.ready
COMMIT_TIME = $(shell git log -1 --format=%ct)

.PHONY: demo test check bench soak docs debian-packages wheel wheel-twice constraints sbom audit \
  clean

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
	$(BIN)/python -m pytest -m "soak or fuzz" --hypothesis-profile=soak

debian-packages:  ## what the browser and LaTeX tests need; without it those tests skip
	apt-get update -q
	apt-get install -q -y --no-install-recommends chromium fonts-noto-cjk \
	  texlive-latex-recommended texlive-xetex texlive-lang-chinese

docs: $(READY)  ## docs/cli.md from --help
	$(BIN)/python tests/test_docs.py

wheel: $(READY)
	SOURCE_DATE_EPOCH=$(COMMIT_TIME) $(BIN)/python -m build --wheel

wheel-twice: $(READY)  ## the same wheel from two fresh copies of the commit, or it fails
	rm -rf build/once build/again
	for copy in once again; do \
	  mkdir -p build/$$copy && git archive HEAD | tar -x -C build/$$copy && \
	  SOURCE_DATE_EPOCH=$(COMMIT_TIME) $(BIN)/python -m build --wheel build/$$copy || exit 1; done
	cmp build/once/dist/*.whl build/again/dist/*.whl && sha256sum build/once/dist/*.whl

constraints: $(READY)  ## constraints.txt from what is installed, without addresses
	{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable --exclude pip \
	  | sed -n 's/+cpu$$//; /^[A-Za-z0-9._-]*==[^ ]*$$/p'; } > build.constraints
	mv build.constraints constraints.txt

sbom: $(READY) $(TOOLS)  ## software bill of materials of .venv, CycloneDX JSON
	SOURCE_DATE_EPOCH=$(COMMIT_TIME) build/tools/bin/cyclonedx-py environment $(BIN)/python \
	  --pyproject pyproject.toml --output-reproducible -o build/sbom.cdx.json

audit: $(TOOLS)  ## known weaknesses of the pinned versions; asks the advisory service of PyPI
	build/tools/bin/pip-audit -r constraints.txt --no-deps --disable-pip --strict

$(TOOLS):
	$(PYTHON) -m venv build/tools
	build/tools/bin/python -m pip install --quiet cyclonedx-bom pip-audit
	@touch $@

clean:
	rm -rf .venv build dist demo

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); \
	  sys.exit(0 if ok else "mingmoe-eval needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[hf,dev]'
	@touch $@
