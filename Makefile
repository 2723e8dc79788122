# Every target does all of its own set-up and may be run twice.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The tests start hundreds of Python processes. Each would compile all modules again without their byte code.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST ?= $(BIN)/python -m pytest

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml scripts/venv.py
	@$(PYTHON) scripts/venv.py $(VENV)
	@touch $@

setup: $(READY) ## Make the virtual environment

demo: $(READY) ## See verdicts: embedded Weightlock, sample manifests, no cluster
	@$(BIN)/python scripts/demo.py

control-plane: $(READY) ## Build the real control plane the end-to-end tests use (cached)
	@$(BIN)/python tests/tools/controlplane.py > /dev/null || [ $$? -eq 3 ]

key-servers: $(READY) ## Make the key services the tests wrap keys with: Vault from source, SoftHSM and libfuse from Debian (cached)
	@$(BIN)/python tests/tools/debpackages.py softhsm2 libsofthsm2 softhsm2-common > /dev/null || [ $$? -eq 3 ]
	@$(BIN)/python tests/tools/vaultserver.py > /dev/null || [ $$? -eq 3 ]
	@$(BIN)/python tests/tools/debpackages.py libfuse3-3 > /dev/null || [ $$? -eq 3 ]

prometheus: $(READY) ## Fetch Prometheus from Debian, and its operator's types, for the tests of monitoring (cached)
	@$(BIN)/python tests/tools/debpackages.py prometheus > /dev/null || [ $$? -eq 3 ]
	@$(BIN)/python tests/tools/operatorcrds.py > /dev/null || [ $$? -eq 3 ]

log-verifiers: $(READY) ## Build the verifiers of the audit log (Tessera's fsck, torchwood's litewitness), fetch rsyslog and OSCAL's schema (cached)
	@$(BIN)/python tests/tools/debpackages.py rsyslog rsyslog-openssl libestr0 libfastjson4 > /dev/null || [ $$? -eq 3 ]
	@$(BIN)/python tests/tools/oscalschema.py > /dev/null || [ $$? -eq 3 ]
	@$(BIN)/python tests/tools/logverifiers.py > /dev/null || [ $$? -eq 3 ]

node: $(READY) control-plane ## Build the parts of a real node: kubelet, containerd, images (cached; needs root and Linux)
	@$(BIN)/python tests/tools/node.py > /dev/null || [ $$? -eq 3 ]

bandwidth-plugin: $(READY) ## Build the CNI bandwidth plugin for the tests of egress limits (cached)
	@$(BIN)/python tests/tools/bandwidthplugin.py > /dev/null || [ $$? -eq 3 ]

browser: $(READY) ## Find Chromium for the tests of pages; in CI, install it from Debian
	@$(BIN)/python tests/tools/browser.py > /dev/null || [ $$? -eq 3 ]

registry: $(READY) ## Fetch a registry from Debian, for the tests of signed images (cached)
	@$(BIN)/python tests/tools/debpackages.py docker-registry > /dev/null || [ $$? -eq 3 ]

operators: $(READY) ## Build JobSet, KubeRay and LWS from their Go modules for tests/e2e/operators (cached; about 10 minutes of CPU each)
	@$(BIN)/python tests/tools/operators.py > /dev/null || [ $$? -eq 3 ]

sigstore: $(READY) registry ## Build cosign 2 and 3, Fulcio, Rekor v2 and others for test_cosign.py of `make e2e-long` (18 minutes of a core, cached)
	@$(BIN)/python tests/tools/sigstoreparts.py > /dev/null || [ $$? -eq 3 ]
	@$(BIN)/python tests/tools/cosign2.py > /dev/null || [ $$? -eq 3 ]

vault-cli: $(READY) key-servers ## Build the Vault client for the test of the commands in docs/sealed-weights.md (10 minutes of a core, cached)
	@$(BIN)/python tests/tools/vaultcli.py > /dev/null || [ $$? -eq 3 ]

test: $(READY) control-plane key-servers prometheus registry log-verifiers bandwidth-plugin browser node ## All tests, those on the real API server included
	@$(MAKE) --no-print-directory --keep-going test-unit test-e2e

test-unit: $(READY)
	@$(PYTEST) tests/unit tests/redteam -n 2 --dist loadfile

# Each has a control plane of its own, of about 1 GiB and a fifth of a core.
E2E_PROCESSES ?= 3

test-e2e: $(READY)
	@$(PYTEST) tests/e2e -n $(E2E_PROCESSES) --dist loadfile

coverage: $(READY) ## The tests that need no API server, and the lines that they do not run
	@$(PYTEST) tests/unit tests/redteam -n 2 --dist loadfile --cov --cov-report=term:skip-covered

unit: $(READY) ## Only the tests that need no API server
	@$(PYTEST) tests/unit

e2e: $(READY) control-plane ## Only the tests on the real API server
	@$(PYTEST) tests/e2e

e2e-long: $(READY) control-plane operators sigstore ## The end-to-end tests that take minutes each: detection, cosign, forgeries, the attack corpus, storage, operators
	@WEIGHTLOCK_E2E_LONG=1 $(PYTEST) tests/e2e/test_cosign.py tests/e2e/test_detection.py tests/e2e/test_forgery.py tests/e2e/test_known_images.py tests/e2e/test_api_server_token.py tests/e2e/test_gitops.py tests/e2e/test_redteam.py tests/e2e/test_storage_identity.py tests/e2e/test_chart.py tests/e2e/test_differential.py tests/e2e/operators

e2e-node: $(READY) node ## Only the tests on a real node, those that take minutes included
	@$(BIN)/python tests/tools/node.py --previous 0.2.0 > /dev/null || [ $$? -eq 3 ]
	@$(BIN)/python tests/tools/node.py --with network-policy --with gvisor > /dev/null || [ $$? -eq 3 ]
	@WEIGHTLOCK_E2E_LONG=1 $(PYTEST) tests/e2e/node

loaders: $(READY) ## The tests of torch, transformers and vLLM, in an environment of their own (about 11 GB)
	@$(BIN)/python tests/tools/loaders.py

e2e-kind: $(READY) image ## The end-to-end tests on a kind cluster (needs Docker and kind)
	@WEIGHTLOCK_E2E=kind WEIGHTLOCK_IMAGE=$(IMAGE) $(PYTEST) tests/e2e

chaos: $(READY) control-plane ## What faults of Weightlock's own processes cost: the whole table (about an hour)
	@WEIGHTLOCK_CHAOS=whole $(PYTEST) -s tests/e2e/test_restarts.py tests/e2e/test_failure.py

lint: $(READY) ## Style, types, layers, generated files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; fi
	@$(BIN)/python scripts/generate.py --check

format: $(READY) ## Format and mend what can be mended
	@$(BIN)/ruff check --fix -q . || true
	@$(BIN)/ruff format -q .

generate: $(READY) ## Write the CRDs from the types
	@$(BIN)/python scripts/generate.py

bench: $(READY) ## Measure; prints ratios within one run
	@$(BIN)/python -m bench

bench-peers: $(READY) control-plane ## Measure beside Kyverno, Gatekeeper and others (20 minutes; ARGS=--quick tries)
	@$(BIN)/python bench/peers/build.py > /dev/null
	@$(BIN)/python -m bench.peers $(ARGS)

playground: $(READY) control-plane ## A control plane with Weightlock and the samples, until Ctrl-C
	@$(BIN)/python scripts/playground.py

cluster: $(READY) ## A cluster of real nodes without Docker, with Weightlock and sealed weights, until Ctrl-C (ARGS=--help lists optional parts)
	@$(BIN)/python scripts/cluster.py $(ARGS)

IMAGE_TAG ?= dev
IMAGE := weightlock:$(IMAGE_TAG)
image: ## Build both container images, with SBOM and provenance (needs Docker, Podman or Buildah)
	@$(PYTHON) scripts/image.py $(IMAGE_TAG)

image-audit: $(READY) ## Look up known vulnerabilities of what the images contain (needs the data of PyPI or OSV)
	@$(BIN)/pip install -q pip-audit
	@$(BIN)/python scripts/imageaudit.py

lock: $(READY) ## Resolve the dependencies again (ARGS=--upgrade takes the newest)
	@$(BIN)/pip install -q uv
	@$(BIN)/python scripts/lock.py $(ARGS)

clean: ## Remove what was made in this tree
	@rm -rf $(VENV) build dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

.PHONY: help setup test test-unit test-e2e coverage demo control-plane key-servers prometheus registry sigstore log-verifiers bandwidth-plugin browser node operators vault-cli unit e2e e2e-long e2e-node loaders e2e-kind chaos lint format generate bench bench-peers playground cluster image image-audit lock clean
