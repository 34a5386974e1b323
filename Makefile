# Interpreters to try, in order. Override with e.g. `make install PYTHON=/path/to/python3.11`.
PYTHON ?= python3.11 python3.12 python3.13 python3.10 python3
# Where the demo keeps its results; a second `make demo` resumes what it finds there.
WORKDIR ?= runs/mnist
# Passed on to pytest, e.g. PYTEST_ARGS="-n 4" or PYTEST_ARGS="-m slow".
PYTEST_ARGS ?= -n 2 --dist worksteal

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# Formats BUILD files. npm alone packages it; where there is no npm, they go unchecked.
BUILDIFIER := @bazel/buildifier@8.2.1
BUILD_FILES = WORKSPACE $(shell find . -name BUILD.bazel -not -path "./$(VENV)/*" -not -path "./build/*")

# Keeps TensorFlow's start-up messages out of the output of the tests and the demo.
TF_CPP_MIN_LOG_LEVEL ?= 3
export TF_CPP_MIN_LOG_LEVEL

# Freed memory is kept for the next array. By default glibc hands large arrays back to the system, and
# every operation of TensorFlow then pays for new pages: in tests, more than for its arithmetic.
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := 8589934592
export MALLOC_TOP_PAD_ := 67108864

# Two pips at once in one environment damage it.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help install test browser lint check-wheel docs demo demo-clean clean distclean

help:
	@echo 'make install     install amc_tf into $(VENV), editable'
	@echo 'make test        lint, type check and test'
	@echo 'make lint        lint and type check alone'
	@echo 'make check-wheel build a wheel, install it into a clean environment, test it there'
	@echo 'make docs        make a site of docs/ and the docstrings in build/docs'
	@echo 'make demo        compress a small MNIST model; results in WORKDIR ($(WORKDIR))'
	@echo 'make demo-clean  remove WORKDIR, so that the next demo starts afresh'
	@echo 'make clean       remove caches and build outputs'
	@echo 'make distclean   clean, and remove $(VENV) too'

install: $(VENV)/.installed

test: lint browser
	$(PY) -m pytest $(PYTEST_ARGS)

# A Chromium for the tests of the report: found, or fetched if it can be. Without one they are skipped.
browser: $(VENV)/.installed-test
	$(PY) tests/helpers/chromium.py

lint: $(VENV)/.installed-test $(VENV)/.buildifier
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyrefly check --python-interpreter-path $(PY)
	@buildifier=$(VENV)/node_modules/.bin/buildifier; if [ -x $$buildifier ]; then \
	    echo buildifier -mode=check -lint=warn '$(BUILD_FILES)'; \
	    $$buildifier -mode=check -lint=warn $(BUILD_FILES); fi

OF_THE_SOURCES := test_benchmarks.py test_build_files.py test_docs.py test_layers.py \
    test_pages.py test_plan_archive.py test_public_api.py test_recipes_page.py test_wheel.py
# Away from the sources, so that nothing but the wheel can be imported; what reads the sources
# themselves (BUILD files, packaging) has no place there.
check-wheel: $(VENV)/.created
	rm -rf build/wheel && mkdir -p build/wheel
	$(PIP) wheel --no-deps --wheel-dir build/wheel .
	$(PY) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install -c constraints.txt \
	    "$$(ls build/wheel/*.whl)[test]"
	@$(call agent,build/wheel/venv/bin/python)
	cp -r tests configs examples README.md pyproject.toml build/wheel
	cd build/wheel && rm $(addprefix tests/,$(OF_THE_SOURCES)) && \
	    venv/bin/python -m pytest $(PYTEST_ARGS)

# Strict: a link that leads nowhere, or a public name without a docstring, is an error.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build

demo: $(VENV)/.installed-demo
	$(PY) -m amc_tf.cli.compress --config=configs/mnist.py --workdir='$(WORKDIR)'
	@echo
	@echo 'Next: open $(WORKDIR)/report.html in a browser, then compress a model of yours.'
	@echo '  its groups of channels:  $(VENV)/bin/amc-inspect mine.keras'
	@echo '  from your own script:    amc_tf.compress(model, task, amc_tf.Budget(macs=0.5), "runs/mine")'
	@echo '  docs/own_model.md says what model, task and budget may be; configs/mnist.py is the demo.'

demo-clean:
	rm -rf -- '$(WORKDIR)'

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path './$(VENV)' -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

# The environment. Importing ensurepip finds the interpreters of distributions that package venv
# apart; a launcher that resolves on PATH but cannot start fails the same way. What an interrupted
# run left behind is rebuilt, a working environment is kept.
$(VENV)/.created:
	@check='import sys, ensurepip, venv; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))'; \
	if $(PY) -c "$$check" 2>/dev/null && $(PY) -m pip --version >/dev/null 2>&1; then exit 0; fi; \
	for python in $(PYTHON); do \
	    if "$$python" -c "$$check" 2>/dev/null; then \
	        echo "Creating $(VENV) with $$python"; \
	        exec "$$python" -m venv --clear $(VENV); \
	    fi; \
	done; \
	echo 'error: no Python 3.10 to 3.13 with the venv module found (tried: $(PYTHON)).' >&2; \
	echo 'Install one, e.g. `apt install python3.11 python3.11-venv` or `pyenv install 3.11`,' >&2; \
	echo 'and put it on PATH, or name it: make PYTHON=/path/to/python3.11 ...' >&2; \
	exit 1
	@# The pins were settled with a current pip; these Pythons bundle a pip 23.
	$(PIP) install 'pip>=24'
	@touch $@

# TF-Agents pins versions that little else can live with: it comes without its dependencies, which
# pyproject.toml names in its place.
agent = $(1) -m pip install --disable-pip-version-check --no-deps -c constraints.txt tf-agents

# Each extra includes the package itself. pip takes the installed package out before it puts the new
# one in, so all stamps are held back meanwhile: an interrupted installation leaves none. They come
# back with their old times, so that tests and demo in turn do not reinstall each other.
define pip_install
@mkdir -p $(VENV)/.held; mv -f $(VENV)/.installed* $(VENV)/.held 2>/dev/null || true
$(PIP) install -e '$(1)'
@$(call agent,$(PY))
@mv -f $(VENV)/.held/.installed* $(VENV) 2>/dev/null || true
@touch $(VENV)/.installed $@
endef

# A BUILD file in bad shape should not keep anyone without npm, or without a network, from testing.
$(VENV)/.buildifier: $(VENV)/.created
	@if npm install --prefix $(VENV) --no-save --no-audit --no-fund --loglevel=error $(BUILDIFIER); then \
	    touch $@; else echo 'BUILD files are not checked: buildifier ($(BUILDIFIER)) needs npm'; fi

$(VENV)/.installed: $(VENV)/.created setup.py pyproject.toml
	$(call pip_install,.)

$(VENV)/.installed-%: $(VENV)/.created setup.py pyproject.toml
	$(call pip_install,.[$*])
