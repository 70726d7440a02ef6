# Every check and chore is defined here once; CI, pre-commit and people call these targets.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
DEVICE ?= auto
# The model to serve: a file, or a name on the Hugging Face hub (OWNER/NAME); empty means the demo model in model/demo.
# For make image a name on the hub, whose model the image then brings along.
MODEL ?=
# What the image runs on: openvino, cpu or cuda.
ACCELERATOR ?= openvino
# The image's tag.
TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)$(patsubst %,-%,$(filter-out openvino,$(ACCELERATOR)))
# Where the image is published, without a tag, e.g. registry.example.org/team/detr-serve; empty means nowhere.
PUSH ?=
# What builds it: docker where its engine answers, else buildah. More options to its build: BUILD_OPTIONS.
BUILDER ?= $(shell docker info >/dev/null 2>&1 && echo docker || echo buildah)
BUILD_OPTIONS ?=
# For more options to uv, e.g. make lock LOCK=--upgrade, or LOCK='--upgrade-package pillow'
LOCK ?=
# For more options to pytest, e.g. make test TESTS="tests/service -k queue -x"
TESTS ?=
# What make gpu runs: the environment of make test where it is, else whatever is installed.
GPU_PYTHON ?= $(if $(wildcard $(DEV)/bin/python),$(DEV)/bin/python,$(PYTHON))
# How many tests make test runs at once.
WORKERS ?= 2

SERVE := .venv-serve
DEV := .venv
SUPPLY := .venv-supply
WIRE := .venv-wire
WIRE_TESTS := tests/service/wire tests/service/test_process.py tests/service/test_process_clients.py tests/service/test_server.py
IMAGES := openvino cpu cuda
# Some tests run make themselves, and are not to take this one's jobs.
SLOW = env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL $(DEV)/bin/python -m pytest -m 'slow and not soak and not gpu'
MYPY_PATHS := model service tests

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# What buildah makes by default has no place for a health check.
BUILD_FORMAT = $(if $(findstring buildah,$(BUILDER)),--format docker)
.PHONY: help serve image test test-rest rest-end-to-end rest-others test-all test-wire soak gpu lint format typecheck docs templates pictures lock audit clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(SERVE)/installed ## Install what serving needs (no torch) and serve the demo model: HOST, PORT, DEVICE, MODEL
	$(SERVE)/bin/detr serve --host $(HOST) --port $(PORT) --device $(DEVICE) $(if $(MODEL),--model $(MODEL))

image: ## Build the container image, and publish it with PUSH=registry/name: ACCELERATOR, MODEL, TAG, PUSH
	$(BUILDER) build $(BUILD_FORMAT) $(BUILD_OPTIONS) --file docker/Dockerfile --tag detr-serve:$(TAG) \
	    --build-arg ACCELERATOR=$(ACCELERATOR) --build-arg MODEL=$(MODEL) .
	@$(if $(PUSH),$(BUILDER) tag detr-serve:$(TAG) $(PUSH):$(TAG) && $(BUILDER) push $(PUSH):$(TAG))

test: $(DEV)/installed ## Install everything, torch included, and run the tests that are not slow: TESTS, WORKERS
	$(DEV)/bin/python -m pytest -m 'not slow and not soak and not gpu' --numprocesses $(WORKERS) $(TESTS)

# Two streams, because half of the time such a test waits: for a server, a container or a download.
test-rest: $(DEV)/installed ## Run the slow tests, which make test leaves out, or those of TESTS
ifdef TESTS
	$(SLOW) $(TESTS)
else
	$(MAKE) --jobs 2 rest-end-to-end rest-others
endif

rest-end-to-end: ## Run the slow tests of tests/end_to_end
	$(SLOW) tests/end_to_end

rest-others: ## Run the slow tests of all other folders
	$(SLOW) tests --ignore tests/end_to_end

test-all: test test-rest ## Run all tests but the soak

test-wire: ## Run the tests of service/wire against the newest uvicorn and h11, in an environment of their own: TESTS
	$(PYTHON) -m venv --clear $(WIRE)
	$(WIRE)/bin/python -m pip install --quiet --editable . pytest pytest-timeout hypothesis httpx psutil onnx
	$(WIRE)/bin/python -m pip install --quiet --upgrade uvicorn h11
	$(WIRE)/bin/python -m pytest $(WIRE_TESTS) $(TESTS)

soak: $(DEV)/installed ## Run the long tests of reliability, about an hour of load, faults and chaos: TESTS
	$(DEV)/bin/python -m pytest -m soak $(TESTS)

gpu: ## Try and measure on this machine's NVIDIA GPU with what is installed, at most 7 minutes: DRY_RUN=1 takes the CPU, TESTS
	$(if $(DRY_RUN),DETR_GPU_DRY_RUN=1) $(GPU_PYTHON) -m pytest tests/gpu -m gpu -q $(TESTS)

lint: $(DEV)/installed ## Check style, likely bugs and formatting
	$(DEV)/bin/ruff check
	$(DEV)/bin/ruff format --check

format: $(DEV)/installed ## Rewrite the code in the house format
	$(DEV)/bin/ruff check --fix
	$(DEV)/bin/ruff format

typecheck: $(DEV)/installed ## Check the types
	$(DEV)/bin/mypy

docs: $(DEV)/installed ## Build the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(DEV)/bin/mkdocs build --strict --quiet

templates: $(DEV)/installed ## Write the graphs without weights that are filled without torch, after a change of network or exporter
	$(DEV)/bin/python -m model.exporting.graph_templates

pictures: $(DEV)/installed ## Draw the pictures of docs/architecture.md from the code, and photograph the page in Debian's chromium
	$(DEV)/bin/python -m tests.architecture_pictures
	$(DEV)/bin/python -m tests.page_picture

lock: $(SUPPLY)/installed ## Pin what the images install, with hashes, in docker/requirements-*.txt: LOCK
	@for image in $(IMAGES) build; do \
	    echo "docker/requirements-$$image.txt" && \
	    $(SUPPLY)/bin/python docker/requirements.py $$image pyproject.toml > $(SUPPLY)/$$image.in && \
	    $(SUPPLY)/bin/uv pip compile - --quiet --universal --python-version 3.11 --generate-hashes --only-binary :all: \
	        --custom-compile-command "make lock" $(LOCK) --output-file docker/requirements-$$image.txt \
	        < $(SUPPLY)/$$image.in || exit 1; \
	done

audit: $(SUPPLY)/installed ## Ask PyPI for known holes in what the images install; what cannot be asked is a failure
	$(SUPPLY)/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
	    $(foreach image,$(IMAGES) build,--requirement docker/requirements-$(image).txt)

clean: ## Remove the environments, caches and build products
	rm -rf $(SERVE) $(DEV) $(SUPPLY) $(WIRE) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find model service tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Each environment is made once, and again when pyproject.toml changes. The stamp is written last, so an install that
# was cut short is taken up again.
$(SERVE)/installed: pyproject.toml
	$(PYTHON) -m venv $(SERVE)
	$(SERVE)/bin/python -m pip install --quiet --editable .
	touch $@

$(DEV)/installed: pyproject.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install --quiet --editable '.[train,dev]'
	touch $@

# The tools that write and check the lock; no environment of the project's holds them.
$(SUPPLY)/installed: Makefile
	$(PYTHON) -m venv $(SUPPLY)
	$(SUPPLY)/bin/python -m pip install --quiet 'uv>=0.13' 'pip-audit>=2.10'
	touch $@
