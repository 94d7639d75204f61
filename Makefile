# make demo: the whole path, from nothing to a hybrid cluster that runs unikernels.  make test: all checks.  make help: the rest.
SHELL := /bin/bash
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
PLAY := $(VENV)/bin/ansible-playbook
# The last test of `system` compares the whole machine, and waits until nobody holds this lock.
BESIDE := mkdir -p build && flock --shared build/neighbours.lock

.PHONY: help prepare guest lab lab-down demo test lint sanity unit kubernetes contract loopback wide cgroup2 system lab-test molecule bench compat clean
.DEFAULT_GOAL := help

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

test: prepare guest kubernetes ## lint, sanity, unit, contract, loopback and system, with the time of each
	@tools/run-steps system "lint+sanity unit contract loopback"

lint: prepare ## ruff, mypy, import-linter, ansible-lint (production)
	@$(VENV)/bin/python tools/lint.py

sanity: prepare ## ansible-test sanity, no ignore files
	@$(VENV)/bin/python tools/sanity.py

unit: prepare ## Pure logic, seconds, no root
	@$(VENV)/bin/python -m pytest tests/unit -q -n auto --dist loadfile

kubernetes: prepare ## The Kubernetes programs for this machine (the first time six minutes, then they are kept)
	@mkdir -p build; printf "Kubernetes programs: from the cache, or built from Debian's source\n"
	@$(VENV)/bin/ansible cp1 -c local -e ansible_python_interpreter=$(CURDIR)/$(VENV)/bin/python -m unifleet.hybrid.kubernetes_binaries -a \
	  '{"source": "debian_source", "architectures": ["$(shell dpkg --print-architecture)"], "components": ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"]}' \
	  >build/kubernetes.log || { cat build/kubernetes.log; exit 1; }

contract: prepare guest ## One suite for every kind of machine, on a host like the lab's kvm1
	@$(BESIDE) tools/contract kvm1

loopback: prepare guest kubernetes ## Agents, control plane, registry and guests, for real but without hosts
	@$(BESIDE) $(VENV)/bin/python -m pytest tests/system -v -m 'system and not lab and not wide and not cgroup2' -n 2 --dist loadfile --no-loadscope-reorder --durations=12

wide: prepare guest kubernetes ## What contract, loopback and system promise, on further versions, hypervisors, machines and kernels: before a release
	@tools/contract pi1
	@$(VENV)/bin/python -m pytest tests/system -v -m 'system and not lab and wide' -n 2 --dist loadfile --durations=12
	@$(VENV)/bin/python -m pytest tests/system -v -m 'lab and wide' --ignore=tests/system/test_lab.py --durations=12

cgroup2: prepare guest kubernetes ## runu and the worker's roles on an emulated Debian 13: cgroup version 2, systemd's driver, containerd 1.7
	@$(VENV)/bin/python -m pytest tests/system -v -m cgroup2 --durations=12

system: prepare guest ## The lab cluster with everything real
	@$(VENV)/bin/python -m pytest tests/system -v -m 'lab and not wide' --ignore=tests/system/test_lab.py --durations=12

lab-test: prepare ## The lab's own crashes and power cuts; compares the whole machine, so nothing else may run beside it
	@$(VENV)/bin/python -m pytest tests/system/test_lab.py -v

molecule: prepare guest ## The molecule scenarios on the lab's hosts: site, labels, reset (the lab must not be up: they make it and take it down)
	@$(VENV)/bin/molecule test --all

bench: prepare guest ## Sizes, boot times and memory beside what one would compare them with, into build/bench (PARTS='sizes boot' for some)
	@PYTHONPATH=collections $(VENV)/bin/python -m ansible_collections.unifleet.hybrid.tools.bench $(PARTS)

compat: prepare ## Unit tests, playbooks and sanity with the other supported ansible-core (2.19), where its Python is found
	@tools/compat

clean: ## Remove what builds made (not the lab, not the cache)
	@rm -rf build guest/build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
