# Setting up, training, watching and testing; `make help` lists the targets.

PYTHON ?= $(or $(shell for p in python3.11 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done),python3.11)
# Newest run by default, the one that --resume takes.
RUN ?= $(shell $(VENV_PYTHON) -m scripts.newest_run)
# Options that are passed on to launch.py, evaluate.py, TensorBoard or pytest.
ARGS ?=
# Where `make bench` writes its figures; those in the documentation are under docs/results/performance.
BENCH ?= build/bench
# Package index to take torch from, such as https://download.pytorch.org/whl/cpu; pip's own if empty.
TORCH_INDEX ?=

VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
# An environment of another Python, or half made when setting up was interrupted, is made anew.
VENV_WORKS = $(VENV_PYTHON) -c 'import pip, sys; sys.exit(sys.version_info[:2] != (3, 11))'
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_PEERS := $(VENV)/.installed-peers
INSTALLED_CLUSTER := $(VENV)/.installed-cluster
# -qq keeps errors and drops warnings. Without build isolation, so that the pinned setuptools builds the sdists too.
PIP_INSTALL := $(VENV_PYTHON) -m pip install -qq --disable-pip-version-check --use-pep517 -c constraints.txt

missing = $(shell $(PYTHON) scripts/check_platform.py 2>/dev/null || echo 'Python 3.11 does not run as "$(PYTHON)": \
	install it, or name one with make PYTHON=/path/to/python3.11')

.DEFAULT_GOAL := help
.PHONY: help setup setup-cluster cluster-images train test test-cluster chaos audit watch evaluate tensorboard bench bench-scaling bench-peers results reproduce ablation clean need-run

help: ## List the targets
	@echo 'make TARGET [ARGS="options passed on"] [RUN=runs/NAME] [PYTHON=python3.11] [TORCH_INDEX=URL]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED) ## Create .venv with the pinned dependencies; at once if that is done
	@:

setup-cluster: $(INSTALLED_CLUSTER) ## The same with what a Ray cluster needs, on your machine and on the cluster's
	@:

cluster-images: setup-cluster ## Write the newest machine images of the region into cluster.yaml
	@$(VENV_PYTHON) -m scripts.cluster_images cluster.yaml

train: setup ## Train (ARGS: options of launch.py, see --help)
	$(VENV_PYTHON) launch.py $(ARGS)

test: $(INSTALLED_DEV) ## Run ruff, mypy and pytest (ARGS: options of pytest)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy .
	$(VENV_PYTHON) -m pytest $(ARGS)

test-cluster: $(INSTALLED_DEV) $(INSTALLED_CLUSTER) ## Go a user's whole way on hosts made of namespaces, 15 minutes; root only (ARGS: options of pytest)
	$(VENV_PYTHON) -m pytest -m cluster -x $(ARGS)

watch: setup need-run ## Let the newest run's policy play into an MP4 (ARGS: options of evaluate.py)
	@$(VENV_PYTHON) evaluate.py $(RUN) --episodes 1 --video $(RUN)/watch.mp4 $(ARGS)

evaluate: setup need-run ## Evaluate the newest run's policy (ARGS: options of evaluate.py)
	$(VENV_PYTHON) evaluate.py $(RUN) $(ARGS)

tensorboard: setup need-run ## Show the newest run's curves on http://localhost:6006 (ARGS: options of TensorBoard)
	$(VENV_PYTHON) -m tensorboard.main --host localhost --logdir $(RUN) $(ARGS)

bench: setup ## Measure emulators, actor, replay and learner, 10 minutes; the machine must be quiet
	@mkdir -p $(BENCH)
	$(VENV_PYTHON) -m benchmarks.emulator --out $(BENCH)/emulator.json
	$(VENV_PYTHON) -m benchmarks.actor --out $(BENCH)/actor.json
	$(VENV_PYTHON) -m benchmarks.replay --quick --no-peers --out $(BENCH)/replay.json
	$(VENV_PYTHON) -m benchmarks.learner --quick --out $(BENCH)/learner.json
	$(VENV_PYTHON) -m benchmarks.running_learner --quick --out $(BENCH)/running_learner.json

bench-scaling: setup ## Measure how costs grow with actors and shards, about 25 minutes (ARGS: options of benchmarks.scaling)
	$(VENV_PYTHON) -m benchmarks.scaling_calls --out docs/results/performance/scaling-calls.json
	$(VENV_PYTHON) -m benchmarks.scaling --actors 1,4,16,32,64 --shards 2 --out $(BENCH)/scaling.json $(ARGS)
	$(VENV_PYTHON) -m benchmarks.scaling --actors 16,64 --shards 1,4 --out $(BENCH)/scaling.json $(ARGS)

bench-peers: $(INSTALLED_PEERS) ## Measure replay and speed beside other libraries, over an hour (ARGS: options of benchmarks.peers)
	$(VENV_PYTHON) -m benchmarks.replay --out docs/results/performance/replay.json
	$(VENV_PYTHON) -m benchmarks.peers --out docs/results/performance/peers.json $(ARGS)

chaos: $(INSTALLED_DEV) ## Kill processes and nodes of a real run at random, about 20 minutes (ARGS: options of tests.chaos, launch.py)
	$(VENV_PYTHON) -m tests.chaos $(ARGS)

audit: ## Ask for known vulnerabilities of the pinned dependencies; needs PyPI itself, a mirror has no such data
	@$(PYTHON) -m venv build/audit
	@build/audit/bin/pip install -qq --disable-pip-version-check pip-audit
	build/audit/bin/pip-audit -r constraints.txt --no-deps --disable-pip $(ARGS)

results: setup ## Write docs/results.md and its figures anew from the records under docs/results
	$(VENV_PYTHON) -m benchmarks.compare_dqn --plot-only
	$(VENV_PYTHON) -m benchmarks.learning_results

reproduce: setup ## Train the default preset for 30 minutes and say whether the published clear rate held (ARGS: --seeds 1 2 3)
	$(VENV_PYTHON) -m benchmarks.reproduce $(ARGS)

ablation: setup ## Train variants of the default preset, twelve hours; what has a record is passed over (ARGS: options of benchmarks.ablation)
	$(VENV_PYTHON) -m benchmarks.ablation $(ARGS)

clean: ## Remove .venv and caches; runs stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

need-run:
	$(if $(wildcard $(RUN)),,$(error there is no run$(if $(RUN), "$(RUN)"): train one with make train, or name one with RUN=folder))@:

$(INSTALLED): pyproject.toml constraints.txt
	@$(if $(missing),$(error $(missing)))echo 'Installing into $(VENV) (a few minutes the first time) ...'
	@$(VENV_WORKS) 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP_INSTALL) setuptools wheel
	@$(if $(TORCH_INDEX),$(PIP_INSTALL) --no-deps --index-url $(TORCH_INDEX) torch)
	@$(PIP_INSTALL) --no-build-isolation -e '.[fast]'
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	@echo 'Installing the development tools ...'
	@$(PIP_INSTALL) --no-build-isolation -e '.[dev,fast]'
	@touch $@

$(INSTALLED_CLUSTER): $(INSTALLED)
	@echo 'Installing what a Ray cluster needs ...'
	@$(PIP_INSTALL) --no-build-isolation -e '.[aws,cluster,fast,storage]'
	@touch $@

$(INSTALLED_PEERS): $(INSTALLED)
	@echo 'Installing the libraries to compare with ...'
	@$(PIP_INSTALL) --no-build-isolation -e '.[fast,peers]'
	@touch $@
