# Malformed inputs for everything that reads what others wrote; see tests/fuzz/__main__.py. Included by the Makefile.
FUZZ_COUNT ?= 10000
FUZZ_GUIDED ?= 500

.PHONY: fuzz
fuzz: $(READY) ## try 10,000 malformed inputs and write what became of them to results/fuzz.json and CONTRIBUTING.md
	$(BIN)/python -m tests.fuzz --count $(FUZZ_COUNT) --guided $(FUZZ_GUIDED) --out results/fuzz.json --into CONTRIBUTING.md
