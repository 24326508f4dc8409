# Everything a developer does. Each target does its own set-up, once, in a virtual environment of
# its own; nothing outside this folder is changed.

PYTHON ?= python3
ROS ?= kilted

ifeq ($(filter kilted jazzy,$(ROS)),)
$(error ROS is kilted or jazzy, not '$(ROS)'; docs/distros.md says why)
endif

VENV := $(CURDIR)/.venv$(if $(filter-out kilted,$(ROS)),-$(ROS))
READY := $(VENV)/.ready
BIN := $(VENV)/bin

# One version of ROS is checked whole; for another, what touches ROS is run again.
TESTS := $(if $(filter kilted,$(ROS)),test,$(wildcard test/ros test/unit/test_codec*))
EXTRAS := ros,dev
ifeq ($(ROS),kilted)
EXTRAS := $(EXTRAS),train,openvino,ray
endif

# In a process of their own: one that has run all engines cannot fork safely any more, as the
# loaders of training data do.
ENGINE_TESTS := test/contract/test_engines.py

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# The environment's own ROS, and no other that this shell may have been set up for: its wheels set
# the library path for themselves, unless told that it was done.
export AMENT_PREFIX_PATH := $(VENV)
unexport PYTHONPATH
ifdef _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH
endif

.PHONY: help
help: ## say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1 \t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20
	@echo "  PYTHON=python3.12 chooses the interpreter, ROS=jazzy the ROS to test with (kilted)."

# Less does for the demo, unless all is there.
DEMO := $(if $(wildcard $(READY)),$(VENV),$(CURDIR)/.venv-demo)

.PHONY: demo
demo: export AMENT_PREFIX_PATH := $(DEMO)
demo: $(DEMO)/.ready ## clean a drive through the rain, live, and show before, after and attention
	@$(DEMO)/bin/rain-removal demo --output demo_output

.PHONY: test
test: $(if $(filter kilted,$(ROS)),check) $(READY) ## check, and run the fast tests
	@echo "== tests, ROS $(ROS)"
	$(BIN)/python -m pytest -q -o faulthandler_exit_on_timeout=true $(TESTS) --ignore $(ENGINE_TESTS)
	$(if $(filter kilted,$(ROS)),$(BIN)/python -m pytest -q $(ENGINE_TESTS))

.PHONY: soak
soak: $(READY) ## attack for hours: messages, parameters, signals, kills, disks, files
	PYTHONPATH=test $(BIN)/python -m fuzz.soak --output runs/soak.md $(SOAK)

.PHONY: check
check: $(READY) ## ruff and mypy
	@echo "== ruff and mypy"
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: format
format: $(READY) ## lay the code out as ruff does
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(READY) ## time every network and the node on this machine
	mkdir -p runs
	$(BIN)/rain-removal bench --json runs/bench.json
	$(BIN)/python benchmarks/node.py --json runs/bench_node.json

.PHONY: gpu
gpu: $(READY) ## test and measure on a GPU, in pieces; goes on where it stopped
	$(BIN)/python scripts/gpu

.PHONY: colcon
colcon: .venv-colcon/.ready ## build as a robot does, start what was built, and test it
	scripts/check-colcon .venv-colcon

.PHONY: setup
setup: $(READY) ## only the set-up

.PHONY: clean
clean: ## remove what was made here, environments included
	rm -rf .venv .venv-* build install log dist *.egg-info demo_output
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find rain_removal_ros test -name __pycache__ -type d -prune -exec rm -rf {} +

# Files outside the Python package are copied or compiled when it is installed, even editable, so a
# change to one of them installs again.
INSTALLED := setup.py setup.cfg pyproject.toml package.xml README.md constraints.txt \
	constraints-$(ROS).txt rain_removal_ros/__init__.py \
	$(shell find resource config launch models native 2>/dev/null)

# Of pip only errors are shown: it warns of what its user set up, and of what comes out well.
PIP := -m pip install -qq --disable-pip-version-check -c constraints.txt

$(READY): $(INSTALLED)
	@echo "== setting up $(VENV): Python packages and ROS $(ROS); minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP) -c constraints-$(ROS).txt -e '.[$(EXTRAS)]'
	@touch $@

$(CURDIR)/.venv-demo/.ready: $(INSTALLED)
	@echo "== setting up $(@D): torch and ROS $(ROS); a minute or two the first time"
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@# Most of what is installed is never imported, and compiling it takes as long as all the rest.
	@$(@D)/bin/python $(PIP) --no-compile -c constraints-$(ROS).txt -e '.[ros,torch]' imageio-ffmpeg
	@touch $@

# What a robot has, but for ROS: colcon, pytest, and what the package needs to run.
.venv-colcon/.ready: constraints.txt
	@echo "== setting up .venv-colcon: colcon"
	@test -x .venv-colcon/bin/python || $(PYTHON) -m venv .venv-colcon
	@.venv-colcon/bin/python $(PIP) colcon-core colcon-ros colcon-bash pytest \
		numpy onnxruntime opencv-python-headless pyyaml rosbags safetensors tqdm
	@touch $@
