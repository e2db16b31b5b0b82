# Included by the Makefile: the project's own supply chain. Tools are in tests/supply; RELEASING.md says when each is run.

SUPPLY := $(BIN)/python -m tests.supply
# environments of their own: what they hold is not what the lock says
MINIMUM := .venv-minimum
NEWEST := .venv-newest
AUDIT := .venv-audit
# the suite where versions are not those of the lock, whose own tests then skip
SUITE = OMP_NUM_THREADS=1 FRUGALSEG_UNLOCKED=1 $(1)/bin/pytest -q -n 2 --dist worksteal -m "not slow" $(TESTS)
TESTS ?=
UPGRADE ?=
TAG ?=

.PHONY: lock lock-check licences audit check-addresses release-check test-minimum test-newest

lock: $(READY) ## requirements.lock out of pyproject.toml's bounds; UPGRADE="torch torchvision" or UPGRADE=all lets pins go
	$(SUPPLY).lock --write $(if $(UPGRADE),--upgrade $(UPGRADE))

lock-check: $(READY) ## the lock against the bounds, what packages need, and what is installed
	$(SUPPLY).lock

licences: $(READY) ## DEPENDENCIES.md anew: the licence of every pinned package
	$(SUPPLY).licences --write

$(AUDIT)/.ready: pyproject.toml
	test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --disable-pip-version-check --upgrade pip-audit
	@touch $@

# without the tool, as without a network, what is known here is still checked
audit: $(READY) ## pins against refused versions, licences and known vulnerabilities; REQUIRE=yes where not asking the service is an error
	@$(MAKE) --no-print-directory $(AUDIT)/.ready || echo "pip-audit cannot be installed here" >&2
	$(SUPPLY).audit --tool $(AUDIT)/bin/pip-audit $(if $(REQUIRE),--require-service)

check-addresses: $(READY) ## whether every published data and weights address still answers; ONLY="voc weights"
	$(SUPPLY).addresses $(if $(ONLY),--only $(ONLY))

release-check: $(READY) ## sdist and wheel of the last commit, twice: equal, whole, installable; into dist. TAG=v1.2.3 compares versions
	$(SUPPLY).release --out dist $(if $(TAG),--tag $(TAG))

$(MINIMUM)/.ready: pyproject.toml tests/supply/minimum.py
	test -x $(MINIMUM)/bin/python || $(PYTHON) -m venv $(MINIMUM)
	$(PYTHON) tests/supply/minimum.py --write $(MINIMUM)/constraints.txt
	$(MINIMUM)/bin/pip install --quiet --disable-pip-version-check --constraint $(MINIMUM)/constraints.txt --editable ".[dev,notebooks,dashboards]"
	@touch $@

test-minimum: $(MINIMUM)/.ready ## the suite with the lowest versions that pyproject.toml allows; TESTS="tests/ops tests/nn" picks
	$(call SUITE,$(MINIMUM))

# always asks for newer ones; no cap of pyproject.toml is passed
test-newest: ## the suite with the newest versions that pyproject.toml allows
	test -x $(NEWEST)/bin/python || $(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --editable ".[dev,notebooks,dashboards]"
	$(call SUITE,$(NEWEST))
