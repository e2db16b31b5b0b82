# Included by the Makefile: every stage of every miniature chain is killed, starved and misled, and must end the same.

.PHONY: test-faults test-faults-nightly
test-faults test-faults-nightly: export MALLOC_MMAP_THRESHOLD_ := 2000000000
test-faults test-faults-nightly: export MALLOC_TRIM_THRESHOLD_ := 8000000000
test-faults test-faults-nightly: export MALLOC_TOP_PAD_ := 100000000
test-faults test-faults-nightly: export OMP_NUM_THREADS := 1
test-faults test-faults-nightly: export FRUGALSEG_LINES := 1
test-faults test-faults-nightly: export WANDB_MODE := disabled
# FAULTS="--only sfc --kind killed" for less
FAULTS ?=

test-faults: $(READY) ## kills, full disks, damaged checkpoints and more on every stage in miniature, two at a time, about a quarter of an hour; writes results/faults.json
	$(BIN)/python -m tests.faults $(FAULTS)

test-faults-nightly: $(READY) ## the same with six times the kills and every kind of fault on every stage: hours
	$(BIN)/python -m tests.faults --nightly --out runs/faults-nightly.json --folder runs/faults-nightly $(FAULTS)
