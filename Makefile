# Every path is relative, so that the checkout may be in a folder with spaces in its name.
.POSIX:
.PHONY: help setup run serve demo test test-system test-browser test-oldest check fuzz clients wheels bench pictures
.PHONY: lock schema migrations release release-check

PYTHON = .venv/bin/python
WORKERS = 4
# Keep the order of tests/conftest.py, which runs the slowest tests first.
IN_ORDER = --no-loadscope-reorder
ARGS =
FUZZ_SECONDS = 60

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

setup: ## Create .venv/ with everything for running and testing; most other targets do this first
	@sh bootstrap.sh

run: setup ## Run the demo once through the public API, then serve on http://127.0.0.1:8080
	@$(PYTHON) -m byteor_cloud.demo --serve

serve: setup ## Serve on http://127.0.0.1:8080 without the demo, with the same data folder as make run
	@$(PYTHON) manage.py serve

demo: setup ## Run the demo once in a temporary data folder; exits with 0 if every step succeeded
	@$(PYTHON) -m byteor_cloud.demo

# Leave out the slow tests, which take minutes: those that start servers, kill processes, test releases or drive
# Chromium. ARGS can still name files in the ignored folders.
test: setup ## Run the tests without servers and Chromium; to choose tests: make test ARGS='tests/system/embedded -k killed'
	@$(PYTHON) -m pytest -n $(WORKERS) $(IN_ORDER) -m 'not browser' --ignore=tests/system --ignore=tests/crash \
		--ignore=tests/release $(ARGS)

test-system: setup ## Run the tests that start servers, and those that kill processes
	@$(PYTHON) -m pytest -n $(WORKERS) $(IN_ORDER) tests/system tests/crash $(ARGS)

test-browser: setup ## Run the tests that drive Chromium
	@$(PYTHON) -m pytest -n $(WORKERS) $(IN_ORDER) -m browser tests/browser $(ARGS)

# Leave out the tests of the domains, the console and whole servers, which would take CI too long. mypy checks all code
# for the oldest Python, and in CI make wheels runs the service with it.
OLDEST = $$(sed -n 's/^requires-python = ">=\(.*\)"/\1/p' pyproject.toml)
OLDEST_TESTS = tests/engine tests/verify tests/agent tests/client tests/command \
	tests/api tests/captures tests/computing tests/concurrency tests/database tests/server tests/storage tests/worker

test-oldest: ## Run the tests of engine, verifier, agent, command, client and platform on the oldest supported Python
	@sh bootstrap.sh "$(OLDEST)" || { echo "NOT TESTED on Python $(OLDEST), the oldest supported one" >&2; exit 1; }
	@.venv-$(OLDEST)/bin/python -VV
	@.venv-$(OLDEST)/bin/python -m pytest -n $(WORKERS) $(IN_ORDER) $(OLDEST_TESTS) $(ARGS)

check: setup ## Check lint, format, types, import contracts and new migrations; and that generated files are current
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	@for lock in runtime dev build fuzz clients release; do grep -q "$$($(DECLARED))" requirements/$$lock.lock || \
		{ echo "requirements/$$lock.lock is out of date: run make lock"; exit 1; }; done
	$(PYTHON) manage.py makemigrations --check --dry-run
	$(PYTHON) -m tests.schema_changes.lint
	@$(PYTHON) manage.py spectacular --validate --fail-on-warn --file .venv/openapi.yaml
	@diff -u docs/openapi.yaml .venv/openapi.yaml || { echo "docs/openapi.yaml is out of date: run make schema"; exit 1; }
	$(PYTHON) -m tests.clients.write_client --check

fuzz: setup ## Fuzz the parsers, then a live server for a minute (FUZZ_SECONDS=600 runs longer, ARGS='--seed 7' repeats)
	@BYTEOR_FUZZ_CASES=10000 $(PYTHON) -m pytest -q tests/engine/replay/test_fuzz.py tests/server/test_agent_requests.py
	@sh bootstrap.sh fuzz
	@$(PYTHON) -m tests.fuzz --schemathesis .venv/fuzz/bin/schemathesis --seconds $(FUZZ_SECONDS) $(ARGS)

clients: setup ## Generate a Python and a TypeScript client from docs/openapi.yaml; both must contain every operation
	@sh bootstrap.sh clients
	@$(PYTHON) -m tests.clients --environment .venv/clients $(ARGS)

wheels: setup ## Build both distributions, install them outside of the checkout and run them; ARGS names the Pythons
	@$(PYTHON) -m tests.wheels --uv $(UV) $(ARGS)

release: setup ## Build and sign the files of a release into dist/: make release ARGS='--key FILE', see docs/releasing.md
	@sh bootstrap.sh release
	@$(PYTHON) -m tests.release --uv $(UV) --cyclonedx .venv/release/bin/cyclonedx-py $(ARGS)

# Run these tests in one process: most of them start several servers, and two processes are not faster on two cores.
release-check: setup ## Test releases, upgrades and a large backup; lists the tests that cannot run on this machine
	@$(PYTHON) -m pytest tests/release $(ARGS)

bench: setup ## Run the benchmarks
	@$(PYTHON) -m tests.bench $(ARGS)

migrations: setup ## Write migrations for changes to the models
	@$(PYTHON) manage.py makemigrations $(ARGS)

schema: setup ## Write docs/openapi.yaml, and from it the typed client in byteor/client/
	@$(PYTHON) manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml
	@$(PYTHON) -m tests.clients.write_client

pictures: setup ## Take the README's screenshots of the console; needs Chromium
	@$(PYTHON) -m tests.pictures

lock: setup ## Update the lock files from pyproject.toml; make lock ARGS=--upgrade also upgrades packages
	@declared="make lock (declared: $$($(DECLARED)))"; set -ex; \
	$(COMPILE) "$$declared" --extra embedded pyproject.toml -o requirements/runtime.lock; \
	$(COMPILE) "$$declared" --extra embedded --group dev pyproject.toml -o requirements/dev.lock; \
	$(COMPILE) "$$declared" --group pyproject.toml:fuzz -o requirements/fuzz.lock; \
	$(COMPILE) "$$declared" --group pyproject.toml:clients -o requirements/clients.lock; \
	$(COMPILE) "$$declared" --group pyproject.toml:release -o requirements/release.lock; \
	printf 'setuptools>=77\nuv\n' | $(COMPILE) "$$declared" - -o requirements/build.lock; \
	case "$(ARGS)" in *--upgrade*) rm -f tests/clients/package-lock.json;; esac; \
	$(UV) run --quiet --no-project --with-requirements requirements/clients.lock \
		npm install --prefix tests/clients --package-lock-only --ignore-scripts

UV = "$$(command -v uv || echo .uv/bin/uv)"
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.12 \
	--generate-hashes --no-emit-index-url --no-emit-package byteor $(ARGS) --custom-compile-command

# Prints a digest of the declarations from which the lock files are compiled. Each lock file contains this digest.
# `make check` can therefore compare it without network access, and does not fail when a dependency publishes a release.
DECLARED = $(PYTHON) -c 'import hashlib, json, tomllib; \
	file, engine = (tomllib.load(open(name, "rb")) for name in ("pyproject.toml", "byteor/pyproject.toml")); \
	project = file["project"]; \
	made_from = [project["requires-python"], project["dependencies"], project["optional-dependencies"], \
	file["dependency-groups"], file["build-system"]["requires"], engine["project"]["dependencies"]]; \
	print(hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16])'
