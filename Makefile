# One target per experiment; stages are files (`done.json`), so nothing that is up to date is done again.
#
# Variables: ROOT (data), SEED or SEEDS="0 1 2", RUN (name of a variant of sfc-voc), CKPT (best|last), ARGS (more settings for
# every Trainer stage, e.g. ARGS="--trainer.max_steps 30"), ONLY (prefix of benchmark rows).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FS := $(BIN)/frugalseg

ROOT ?= data/VOCdevkit/VOC2012
SEED ?= 0
SEEDS ?= $(SEED)
RUN ?=
CKPT ?= best
ARGS ?=
ONLY ?=
BASE := --config experiments/_base/trainer.yaml
CPU := --config experiments/_base/cpu.yaml
dash = $(if $(1),-$(1))

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

# ---------------------------------------------------------------- set-up and checks

.PHONY: setup
setup: $(READY) ## make .venv from requirements.lock (does nothing when up to date)

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make setup PYTHON=..." >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

.PHONY: check
check: $(READY) ## ruff, mypy strict on src, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_architecture.py

.PHONY: test
test: $(READY) ## the test suite without the slow ones
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal -m "not slow"

.PHONY: test-slow
test-slow: $(READY) ## the slow tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m slow

.PHONY: benchmark
benchmark: $(READY) ## speed as ratios, one thread; ONLY=<prefix> picks rows; writes runs/benchmark.json
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmark --out runs/benchmark.json $(if $(ONLY),--only $(ONLY))

.PHONY: clean
clean: ## remove caches and build files (runs and the environment stay)
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------- settings that Make cannot see as files

.PHONY: FORCE
FORCE:

# rewritten only when a variable has changed, so that changed ARGS make stages out of date; `+` also under `make -n`, whose plan
# would otherwise always show everything
runs/%/.settings: FORCE
	+@mkdir -p $(@D)
	+@printf '%s\n' "ROOT=$(ROOT) CKPT=$(CKPT) ARGS=$(ARGS)" | cmp -s - $@ || printf '%s\n' "ROOT=$(ROOT) CKPT=$(CKPT) ARGS=$(ARGS)" > $@

# ---------------------------------------------------------------- data

# $(1) world, $(2) its folder, $(3) more words of `miniature`
world = miniature $(1) --root $(2) $(3) +
# $(1) module, $(2) folder, $(3) recipe, $(4) picture, $(5) more settings
show = show --data=$(1) --data.init_args.root=$(2) --data.init_args.recipe=$(3) --data.init_args.num_workers=0 --data.init_args.batch_size=4 \
  --count 4 --columns 2 --out $(MINI_DATA)/pictures/$(4).png $(5)
MINI_DATA := runs/data-mini
CROP48 := --data.init_args.recipe.init_args.crop=48
FEW := --data.init_args.recipe.init_args.size=96 --data.init_args.recipe.init_args.shots=2
VIEWS := --data.init_args.recipe.init_args.global_size=64 --data.init_args.recipe.init_args.local_size=32 --data.init_args.recipe.init_args.local_views=2

.PHONY: data-mini
data-mini: $(READY) ## all six benchmarks in miniature: write, prepare, check, count and draw them
	OMP_NUM_THREADS=1 $(FS) $(call world,voc,$(MINI_DATA)/voc) $(call world,coco,$(MINI_DATA)/coco) $(call world,ade20k,$(MINI_DATA)/ade20k) \
	  $(call world,cityscapes,$(MINI_DATA)/cityscapes) $(call world,isaid,$(MINI_DATA)/isaid) $(call world,dlrsd,$(MINI_DATA)/dlrsd) \
	  data prepare coco --root $(MINI_DATA)/coco + data prepare isaid5i --raw $(MINI_DATA)/isaid --root $(MINI_DATA)/isaid5i --tile 96 --step 77 --lists \
	  $(foreach b,voc coco2014 ade20k cityscapes isaid5i dlrsd,+ data check $(b) --root $(MINI_DATA)/$(patsubst coco2014,coco,$(b)) \
	    + data stats $(b) --root $(MINI_DATA)/$(patsubst coco2014,coco,$(b)) --out $(MINI_DATA)/stats) \
	  + $(call show,VOC,$(MINI_DATA)/voc,Tags,voc-tags,$(CROP48)) + $(call show,COCO,$(MINI_DATA)/coco,Segment,coco-segment,$(CROP48)) \
	  + $(call show,ADE20K,$(MINI_DATA)/ade20k,Views,ade20k-views,$(VIEWS)) + $(call show,Cityscapes,$(MINI_DATA)/cityscapes,Segment,cityscapes-segment,$(CROP48)) \
	  + $(call show,ISAID5i,$(MINI_DATA)/isaid5i,Episodes,isaid5i-episodes,$(FEW)) + $(call show,DLRSD,$(MINI_DATA)/dlrsd,Episodes,dlrsd-episodes,$(FEW))
	@echo "pictures: $(MINI_DATA)/pictures, class frequencies: $(MINI_DATA)/stats"

# ---------------------------------------------------------------- SFC on PASCAL VOC

SFC_VOC := sfc-voc$(call dash,$(RUN))
SFC_VOC_CONFIG := $(BASE) --config experiments/sfc/voc/classify.yaml

define sfc_voc_seed
runs/$(SFC_VOC)/seed$(1)/classify/done.json: experiments/sfc/voc/classify.yaml experiments/_base/trainer.yaml runs/$(SFC_VOC)/.settings | $(READY)
	$(FS) fit $(SFC_VOC_CONFIG) --run.name "$(RUN)" --seed_everything $(1) --data.init_args.root $(ROOT) $(ARGS)
endef

# $(1) seed, $(2) split: maps of a split and their score
define sfc_voc_maps
runs/$(SFC_VOC)/seed$(1)/cam-$(2)/done.json: runs/$(SFC_VOC)/seed$(1)/classify/done.json experiments/sfc/voc/cam.yaml
	$(FS) predict $(SFC_VOC_CONFIG) --config experiments/sfc/voc/cam.yaml --run.name "$(RUN)" --run.stage cam-$(2) --seed_everything $(1) \
	  --data.init_args.root $(ROOT) --data.init_args.predict_split $(2) --ckpt_path runs/$(SFC_VOC)/seed$(1)/classify/checkpoints/$(CKPT).ckpt $(ARGS)

runs/$(SFC_VOC)/seed$(1)/score-$(2)/done.json: runs/$(SFC_VOC)/seed$(1)/cam-$(2)/done.json
	$(FS) evaluate --maps runs/$(SFC_VOC)/seed$(1)/cam-$(2)/maps --root $(ROOT) --split $(2) --experiment sfc-voc --stage score-$(2) \
	  --out runs/$(SFC_VOC)/seed$(1)/score-$(2) --pictures 6 --quiet
endef

SPLITS ?= train val
$(foreach s,$(SEEDS),$(eval $(call sfc_voc_seed,$(s))))
$(foreach s,$(SEEDS),$(foreach p,$(SPLITS),$(eval $(call sfc_voc_maps,$(s),$(p)))))

.PHONY: sfc-voc
sfc-voc: $(foreach s,$(SEEDS),$(foreach p,$(SPLITS),runs/$(SFC_VOC)/seed$(s)/score-$(p)/done.json)) ## SFC on PASCAL VOC: classifier, maps of train and val, their scores
	$(FS) report runs/$(SFC_VOC) --classes

# ---------------------------------------------------------------- SFC in miniature

MINI := experiments/miniature/sfc
MINI_WORLDS ?= longtail balanced
MINI_METHODS ?= baseline sfc
# the balanced world is the control of the long tail: the demo needs the plain classifier's logits there, no more
DEMO_RUNS := longtail-sfc longtail-baseline balanced-baseline
PRETRAINED := runs/mini-pretrain/seed0/tags

# Small CPU steps spend more time in page faults than in arithmetic when glibc hands every freed tensor back to the
# kernel; keeping the memory makes them about twice as fast (measured: 0.43 s against 1.16 s a step).
demo mini-sfc test test-slow benchmark: export MALLOC_MMAP_THRESHOLD_ := 2000000000
demo mini-sfc test test-slow benchmark: export MALLOC_TRIM_THRESHOLD_ := 8000000000
demo mini-sfc test test-slow benchmark: export MALLOC_TOP_PAD_ := 100000000
demo mini-sfc: export OMP_NUM_THREADS := 1
# two processes share the terminal: plain lines instead of bars
demo mini-sfc: export FRUGALSEG_LINES := 1

runs/worlds/attributes/world.json: | $(READY)
	$(FS) miniature attributes --root $(@D) --images 2400 --images-val 100

runs/worlds/voc-longtail-seed%/world.json: | $(READY)
	$(FS) miniature voc --root $(@D) --seed $*

runs/worlds/voc-balanced-seed%/world.json: | $(READY)
	$(FS) miniature voc --root $(@D) --seed $* --balanced

$(PRETRAINED)/done.json: $(MINI)/pretrain.yaml experiments/_base/trainer.yaml runs/worlds/attributes/world.json
	OMP_NUM_THREADS=2 $(FS) fit $(BASE) --config $(MINI)/pretrain.yaml $(CPU) --run.wandb false

# $(1) seed, $(2) world, $(3) method. Three stages of a minute share one process (and one import of Lightning); each still
# has its own done.json and is left out when that is up to date.
define mini_sfc
MINI_RUN_$(2)_$(3)_$(1) := runs/mini-sfc-$(2)-$(3)/seed$(1)
$$(MINI_RUN_$(2)_$(3)_$(1))/score/done.json: DIR = runs/mini-sfc-$(2)-$(3)/seed$(1)
$$(MINI_RUN_$(2)_$(3)_$(1))/score/done.json: CONFIG = $(BASE) --config $(MINI)/classify.yaml $(if $(filter baseline,$(3)),--config $(MINI)/baseline.yaml)
$$(MINI_RUN_$(2)_$(3)_$(1))/score/done.json: SETTINGS = $(CPU) --run.name $(2)-$(3) --seed_everything $(1) --run.wandb false \
  --data.init_args.root runs/worlds/voc-$(2)-seed$(1) --model.init_args.weights $(PRETRAINED)/checkpoints/last.ckpt $(ARGS)
$$(MINI_RUN_$(2)_$(3)_$(1))/score/done.json: $(wildcard $(MINI)/*.yaml) experiments/_base/trainer.yaml experiments/_base/cpu.yaml \
  $(PRETRAINED)/done.json runs/worlds/voc-$(2)-seed$(1)/world.json runs/mini-sfc-$(2)-$(3)/.settings
	$(FS) fit $$(CONFIG) $$(SETTINGS) \
	  + predict $$(CONFIG) --config $(MINI)/cam.yaml $$(SETTINGS) --ckpt_path $$(DIR)/classify/checkpoints/last.ckpt \
	  + evaluate --maps $$(DIR)/cam/maps --root runs/worlds/voc-$(2)-seed$(1) --split train --limit 240 --parts \
	    --experiment mini-sfc --out $$(DIR)/score --pictures 8 --quiet
endef

$(foreach s,$(SEEDS),$(foreach w,$(MINI_WORLDS),$(foreach m,$(MINI_METHODS),$(eval $(call mini_sfc,$(s),$(w),$(m))))))

MINI_SCORES = $(foreach w,$(MINI_WORLDS),$(foreach m,$(MINI_METHODS),$(foreach s,$(SEEDS),runs/mini-sfc-$(w)-$(m)/seed$(s)/score/done.json)))
.PHONY: mini-sfc mini-sfc-scores demo demo-scores
mini-sfc-scores: $(MINI_SCORES)

mini-sfc: $(READY) ## SFC and its baseline on small synthetic worlds, two processes at a time; SEEDS="0 1 2" aggregates
	@$(MAKE) --no-print-directory -j2 mini-sfc-scores
	$(FS) report $(foreach w,$(MINI_WORLDS),$(foreach m,$(MINI_METHODS),runs/mini-sfc-$(w)-$(m)))

demo-scores: $(foreach r,$(DEMO_RUNS),runs/mini-sfc-$(r)/seed$(firstword $(SEEDS))/score/done.json)

demo: $(READY) ## the main job in miniature: train SFC from image tags, make maps, score them (5 minutes on 2 cores)
	@# three runs on two cores: no core idles while the last run finishes
	@$(MAKE) --no-print-directory -j3 demo-scores
	$(FS) report --classes $(foreach r,$(DEMO_RUNS),runs/mini-sfc-$(r))
	@echo "pictures: runs/mini-sfc-longtail-sfc/seed$(firstword $(SEEDS))/score/pictures/"
