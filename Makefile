# make demo: the whole path, from nothing to a hybrid cluster that runs unikernels.  make test: all checks.  make help: the rest.
SHELL := /bin/bash
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
PLAY := $(VENV)/bin/ansible-playbook

.PHONY: help prepare guest lab lab-down demo test lint sanity unit contract system lab-test compat clean
.DEFAULT_GOAL := help

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

prepare: ## Debian packages, the Python environment, the collection link
	@tools/prepare

guest: prepare ## Build the project's own unikernels
	@$(MAKE) --no-print-directory -C guest

lab: prepare ## Bring up the lab: cp1, kvm1 and pi1 on this machine
	@$(PLAY) playbooks/lab_up.yml

lab-down: prepare ## Take the lab away and leave nothing behind
	@$(PLAY) playbooks/lab_down.yml

demo: prepare ## From nothing to a labelled cluster with a unikernel on the hosts that match
	@tools/demo

test: prepare ## Lint, sanity, unit, contract and system tests, with the time of each
	@tools/run-steps lint sanity unit contract system

lint: prepare ## ruff, mypy, import-linter, ansible-lint (production)
	@$(VENV)/bin/python tools/lint.py

sanity: prepare ## ansible-test sanity, no ignore files
	@$(VENV)/bin/python tools/sanity.py

unit: prepare ## Pure logic, seconds, no root
	@$(VENV)/bin/python -m pytest tests/unit -q -n auto --dist loadfile

contract: prepare guest ## One suite for every kind of machine, on the lab's kvm1 and pi1
	@tools/contract

system: prepare guest ## The lab cluster with everything real
	@$(VENV)/bin/python -m pytest tests/system -v --ignore=tests/system/test_lab.py

lab-test: prepare ## The lab's own crashes and power cuts; compares the whole machine, so nothing else may run beside it
	@$(VENV)/bin/python -m pytest tests/system/test_lab.py -v

compat: prepare ## Unit tests, playbooks and sanity with the other supported ansible-core (2.19), where its Python is found
	@tools/compat

clean: ## Remove what builds made (not the lab, not the cache)
	@rm -rf build guest/build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
