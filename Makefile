# One target per experiment; stages are files (`done.json`), so nothing that is up to date is done again.
#
# Variables: ROOT (data), SEED or SEEDS="0 1 2", RUN (name of a variant of an experiment), CKPT (best|last), SPLITS (scored splits),
# SEGMENT (segment|segment-r38), AFFINITY (irn|psa, of cti-voc), ROWS (of cti-ablation), OF and PICTURES (of cti-pictures),
# FOLD, SHOT, METHOD, BACKBONE, PROTOCOL, SELECT (base|novel|last) and PRETRAIN (yes) of dsmf-*,
# DEVICES (processes per machine), NODES, LAUNCH (local|torchrun|slurm), CPUS (cores per GPU that SLURM is asked for), STRATEGY,
# RESTARTS, PRECISION (fp32|bf16|fp16), LABELS_ON (cpu|cuda|auto: where CRF and random walks run),
# OVERLAYS="channels-last compile ..." of experiments/_base, CACHE (folder of decoded images) of all full-size experiments,
# DATA, METHOD, BACKBONE, WEIGHTS (what is judged instead), PROTOCOL, HEAD, LABELS, CLUSTERS, BENCHMARK and OUT of mevt-* (which are
# in experiments/mevt.mk), REAL (folder of the real samples),
# ROOT, METHOD (sfc|cti), NEW (photos that want masks) and OUT of folder-* (which are in experiments/folder.mk),
# LIMIT (first images alone, of cti-official and sfc-official, whose CKPT is the authors' file),
# ARGS (more settings for every Trainer stage, e.g. ARGS="--trainer.max_steps 30"; ARGS_classify, ARGS_irn, ARGS_psa,
# ARGS_segment, ARGS_pretrain and ARGS_cache for one net or verb alone), ONLY (prefix of benchmark rows).

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

ROOT ?=
SEED ?= 0
SEEDS ?= $(SEED)
RUN ?=
CKPT ?= best
ARGS ?=
ARGS_classify ?=
ARGS_irn ?=
ARGS_psa ?=
ARGS_segment ?=
ARGS_pretrain ?=
ONLY ?=
# where and how Trainer stages run: processes per machine, machines, how they are started, overlays of experiments/_base by name
DEVICES ?=
NODES ?= 1
LAUNCH ?= local
STRATEGY ?= ddp
RESTARTS ?= 3
PRECISION ?=
OVERLAYS ?=
CACHE ?=
CPUS ?= 8
LABELS_ON ?= cpu
$(if $(filter local torchrun slurm,$(LAUNCH)),,$(error LAUNCH=$(LAUNCH): write local, torchrun or slurm))
$(if $(DEVICES),,$(if $(filter-out local,$(LAUNCH))$(filter-out 1,$(NODES)),$(error DEVICES= is not set: how many processes on each machine?)))
$(if $(filter-out 1,$(NODES)),$(if $(filter slurm,$(LAUNCH)),,$(error NODES=$(NODES): several machines need LAUNCH=slurm, or torchrun by hand on each of them)))
$(foreach o,$(PRECISION) $(OVERLAYS),$(if $(wildcard experiments/_base/$(o).yaml),,$(error experiments/_base/$(o).yaml: there is no such overlay)))
ON := $(strip $(if $(DEVICES),--trainer.devices $(DEVICES) --trainer.num_nodes $(NODES) --trainer.strategy $(STRATEGY)) \
  $(foreach o,$(PRECISION) $(OVERLAYS),--config experiments/_base/$(o).yaml) $(CACHE:%=--data.init_args.cache %))
ifneq ($(ON),)
override ARGS := $(strip $(ARGS) $(ON))
endif
# what starts Trainer stages, and the verbs that share work out; LAUNCH changes no result and makes nothing out of date
FS_local := $(FS)
# with a store of rank 0 in place of the agent's: after a restart nobody reads what was said before
FS_torchrun := TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 $(BIN)/python -m torch.distributed.run --standalone --nproc-per-node $(DEVICES) --max-restarts $(RESTARTS) -m frugalseg
FS_slurm := DEVICES=$(DEVICES) RESTARTS=$(RESTARTS) PYTHON=$(BIN)/python sbatch --wait --nodes $(NODES) --gpus-per-node $(DEVICES) --cpus-per-gpu $(CPUS) experiments/_base/slurm/torchrun.sbatch
RUN_ON := $(FS_$(LAUNCH))
BASE := --config experiments/_base/trainer.yaml
CPU := --config experiments/_base/cpu.yaml
dash = $(if $(1),-$(1))

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-25s %s\n", $$1, $$2}'

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
benchmark: $(READY) ## speed as ratios, one thread; ONLY=<prefix> picks rows; BEFORE=<older json> compares; writes runs/benchmark.{json,md,png}
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmark --out runs/benchmark.json $(if $(ONLY),--only $(ONLY)) $(if $(BEFORE),--before $(BEFORE))

.PHONY: benchmark-gpu
benchmark-gpu: $(READY) ## all rows of a GPU in under 8 minutes: runs/benchmark-gpu.json; DEVICE=cpu QUICK=1 tries the script out
	$(BIN)/python -m tests.benchmark.gpu $(if $(DEVICE),--device $(DEVICE)) $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

.PHONY: refine-real
refine-real: $(READY) ## what CRF and random walk make of spoilt masks of genuine VOC images (ROOT=VOC2012 for all of val: hours)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.studies.refine_real $(if $(ROOT),--root $(ROOT)) --out runs/refine-real

.PHONY: budget
budget: $(READY) ## seconds per image of every stage of SFC's chain at full size (half an hour), and what all of VOC costs
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.studies.stage_seconds --out runs/stage_seconds.json
	$(BIN)/python -m tests.studies.budget --measured runs/stage_seconds.json

.PHONY: report
report: $(READY) ## static HTML pages of everything under runs; RUNS="runs/sfc-voc runs/cti-voc" picks experiments
	$(FS) report $(RUNS) --html runs/report

.PHONY: notebooks
notebooks: $(READY) ## execute the notebooks on what is under runs; they and their pictures go to runs/notebooks
	@mkdir -p runs/notebooks && cp notebooks/*.ipynb runs/notebooks
	FRUGALSEG_RUNS="$(CURDIR)/runs" JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter-execute --inplace --kernel_name=python3 runs/notebooks/*.ipynb

.PHONY: sync
sync: $(READY) ## send runs that were logged offline to W&B, those that are not there yet; RUNS as above
	$(FS) sync $(RUNS)

.PHONY: dashboard
dashboard: $(READY) ## a W&B workspace and a report per paper: ENTITY=<you> PROJECT=<project>; without a key their definition as a file
	$(FS) dashboard $(ENTITY:%=--entity %) $(PROJECT:%=--project %) --out runs/dashboard.json

.PHONY: clean
clean: ## remove caches and build files (runs and the environment stay)
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------- settings that Make cannot see as files

.PHONY: FORCE
FORCE:

# an empty ARGS_psa leaves no trace: what was made before there was one stays up to date
SETTINGS_SEEN = ROOT=$(ROOT) CKPT=$(CKPT) ARGS=$(ARGS) $(ARGS_classify) $(ARGS_irn) $(ARGS_segment)$(ARGS_psa:%= %)$(ARGS_pretrain:%= %)$(if $(filter last,$(SELECT)), SELECT=last)$(MEVT_WEIGHTS:%= WEIGHTS=%)$(ARGS_cache:%= %)
# rewritten only when a variable has changed, so that changed ARGS make stages out of date; `+` also under `make -n`, whose plan
# would otherwise always show everything
runs/%/.settings: FORCE
	+@mkdir -p $(@D)
	+@printf '%s\n' "$(SETTINGS_SEEN)" | cmp -s - $@ || printf '%s\n' "$(SETTINGS_SEEN)" > $@

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

# ---------------------------------------------------------------- the weakly supervised chain

# classify -> maps -> seeds (CRF) -> affinity (IRN or PSA) -> labels (random walk) -> segment -> scores, each in a folder of its
# own with its own done.json. An experiment X says: X.yaml (folder of its stages), X.root, X.labelled (the split that gets
# labels), X.of.<split> (whose maps a scored split is read from), X.sweep (maps whose background thresholds are tried), X.masks
# (labels to score, `stage/kind`) and X.pseudo (which of them the segmenter learns).
sfc-voc.yaml := experiments/sfc/voc
sfc-voc.root := $(or $(ROOT),data/VOCdevkit/VOC2012)
sfc-voc.labelled := trainaug
sfc-voc.of.train := trainaug
sfc-voc.of.val := val
sfc-voc.sweep := m0,mw,mp
sfc-voc.masks := seeds/crf seeds/seed_labels labels/refined labels/pseudo
sfc-voc.pseudo := labels-trainaug/pseudo

sfc-coco.yaml := experiments/sfc/coco
sfc-coco.root := $(or $(ROOT),data/coco)
sfc-coco.labelled := train
sfc-coco.of.train := train
sfc-coco.of.val := val
sfc-coco.sweep := m0,mw,mp
# no affinity network on COCO: the segmenter learns the seed labels (sfc.md 5.2)
sfc-coco.masks := seeds/crf seeds/seed_labels
sfc-coco.pseudo := seeds-train/seed_labels

SPLITS ?= train val
SEGMENT ?= segment
AFFINITY ?= irn
$(if $(filter irn psa,$(AFFINITY)),,$(error AFFINITY=$(AFFINITY): there is no such affinity network; write irn or psa))
# ending of what hangs on the affinity network, so that both stand side by side: labels, and all that comes after them
BY := $(call dash,$(filter-out irn,$(AFFINITY)))

cti-voc.yaml := experiments/cti/voc
cti-voc.root := $(or $(ROOT),data/VOCdevkit/VOC2012)
cti-voc.labelled := trainaug
cti-voc.of.train := trainaug
cti-voc.of.val := val
cti-voc.sweep := cam
cti-voc.masks := $(if $(BY),seeds-psa/psa labels-psa/refined,seeds/crf seeds/seed_labels labels/refined)
cti-voc.pseudo := labels$(BY)-trainaug/refined

cti-coco.yaml := experiments/cti/coco
cti-coco.root := $(or $(ROOT),data/coco)
cti-coco.labelled := train
cti-coco.of.train := train
cti-coco.of.val := val
cti-coco.sweep := cam
cti-coco.masks := seeds/crf seeds/seed_labels labels/refined
cti-coco.pseudo := labels-train/refined

# of each affinity network: what it learns and what it writes (`stage/kind`), and the stage of the labels
irn.seeds := seeds/seed_labels
irn.edges := edges/edges
irn.labels := labels
psa.seeds := seeds-psa/psa
psa.edges := affinity/affinities
psa.labels := labels-psa

# $(1) experiment, $(2) seed
folder = runs/$(1)$(call dash,$(RUN))/seed$(2)
# $(1) a/b: a
stage = $(firstword $(subst /, ,$(1)))
# $(1) experiment, $(2) seed, $(3) `stage/kind`, $(4) split
kind = $(call folder,$(1),$(2))/$(call stage,$(3))-$(4)/$(notdir $(3))
# the masks of the segmenter: their YAML, and with $(BY) their stage
PREDICT := $(SEGMENT:segment%=predict%)
# $(1) experiment, $(2) seed, $(3) stage: what every Trainer stage is given
given = --run.name "$(RUN)" --run.stage $(3) --seed_everything $(2) --data.init_args.root $($(1).root) $(ARGS)
# $(1) experiment, $(2...) names of files
yamls = $(BASE) $(foreach y,$(2),--config $($(1).yaml)/$(y).yaml)
files = experiments/_base/trainer.yaml $(foreach y,$(2),$($(1).yaml)/$(y).yaml)
# $(1) experiment, $(2) seed, $(3) stage, $(4) split: whose labels the verbs make, and of which data
verb = --split $(4) --data.init_args.root $($(1).root) --experiment $(1) --stage $(3)-$(4) --out $(call folder,$(1),$(2))/$(3)-$(4) \
  $(if $(filter-out cpu,$(LABELS_ON)),--device $(LABELS_ON))
# $(1) experiment, $(2) seed, $(3) stage, $(4) split: where scores go
score = --config $($(1).yaml)/classify.yaml --data.init_args.root $($(1).root) --split $(4) --train-split $($(1).labelled) \
  --experiment $(1) --stage $(3)-$(4) --out $(call folder,$(1),$(2))/$(3)-$(4) --quiet

# the nets that are trained once, but for the affinity network: $(1) experiment, $(2) seed
define chain_fits
$(call folder,$(1),$(2))/classify/done.json: $(call files,$(1),classify) runs/$(1)$(call dash,$(RUN))/.settings | $(READY)
	$(RUN_ON) fit $(call yamls,$(1),classify) $(call given,$(1),$(2),classify) $(ARGS_classify)

$(call folder,$(1),$(2))/$(SEGMENT)$(BY)/done.json: $(call files,$(1),$(SEGMENT)) $(call folder,$(1),$(2))/$(call stage,$($(1).pseudo))/done.json
	$(RUN_ON) fit $(call yamls,$(1),$(SEGMENT)) $(call given,$(1),$(2),$(SEGMENT)$(BY)) $(ARGS_segment) \
	  --data.init_args.pseudo_labels $(call folder,$(1),$(2))/$($(1).pseudo)
endef

# the affinity network: $(1) experiment, $(2) seed, $(3) irn or psa
define chain_affinity
$(call folder,$(1),$(2))/$(3)/done.json: $(call files,$(1),$(3)) $(dir $(call kind,$(1),$(2),$($(3).seeds),$($(1).labelled)))done.json
	$(RUN_ON) fit $(call yamls,$(1),$(3)) $(call given,$(1),$(2),$(3)) $(ARGS_$(3)) \
	  --data.init_args.pseudo_labels $(call kind,$(1),$(2),$($(3).seeds),$($(1).labelled))
endef

# maps of one split: $(1) experiment, $(2) seed, $(3) split
define chain_maps
$(call folder,$(1),$(2))/cam-$(3)/done.json: $(call files,$(1),cam) $(call folder,$(1),$(2))/classify/done.json
	$(RUN_ON) predict $(call yamls,$(1),classify cam) $(call given,$(1),$(2),cam-$(3)) $(ARGS_classify) \
	  --data.init_args.predict_split $(3) --ckpt_path $(call folder,$(1),$(2))/classify/checkpoints/$(CKPT).ckpt
endef

# what an affinity network makes of them: $(1) experiment, $(2) seed, $(3) split, $(4) irn or psa, $(5) its stage of seeds,
# $(6) its stage of edges, $(7) its stage of labels
define chain_labels
$(call folder,$(1),$(2))/$(5)-$(3)/done.json: $($(1).yaml)/$(5).yaml $(call folder,$(1),$(2))/cam-$(3)/done.json
	$(RUN_ON) crf --config $($(1).yaml)/$(5).yaml --maps $(call folder,$(1),$(2))/cam-$(3)/maps $(call verb,$(1),$(2),$(5),$(3))

$(call folder,$(1),$(2))/$(6)-$(3)/done.json: $(call files,$(1),$(6)) $(call folder,$(1),$(2))/$(4)/done.json
	$(RUN_ON) predict $(call yamls,$(1),$(4) $(6)) $(call given,$(1),$(2),$(6)-$(3)) $(ARGS_$(4)) \
	  --data.init_args.predict_split $(3) --ckpt_path $(call folder,$(1),$(2))/$(4)/checkpoints/last.ckpt

$(call folder,$(1),$(2))/$(7)-$(3)/done.json: $($(1).yaml)/$(7).yaml $(call folder,$(1),$(2))/$(6)-$(3)/done.json $(call folder,$(1),$(2))/cam-$(3)/done.json
	$(RUN_ON) walk --config $($(1).yaml)/$(7).yaml --maps $(call folder,$(1),$(2))/cam-$(3)/maps \
	  --edges $(call kind,$(1),$(2),$($(4).edges),$(3)) $(call verb,$(1),$(2),$(7),$(3))
endef

# scores of one split: $(1) experiment, $(2) seed, $(3) split, $(4) split whose maps and labels there are
define chain_scores
$(call folder,$(1),$(2))/score-$(3)/done.json: $(call folder,$(1),$(2))/cam-$(4)/done.json
	$(FS) evaluate --maps $(call folder,$(1),$(2))/cam-$(4)/maps --sweep $($(1).sweep) $(call score,$(1),$(2),score,$(3)) --pictures 6

$(call folder,$(1),$(2))/score-labels$(BY)-$(3)/done.json: $(foreach m,$($(1).masks),$(dir $(call kind,$(1),$(2),$(m),$(4)))done.json)
	$(FS) evaluate $(foreach m,$($(1).masks),--masks $(notdir $(m))=$(call kind,$(1),$(2),$(m),$(4))) \
	  $(call score,$(1),$(2),score-labels$(BY),$(3))

$(call folder,$(1),$(2))/$(PREDICT)$(BY)-$(3)/done.json: $(call files,$(1),$(PREDICT)) $(call folder,$(1),$(2))/$(SEGMENT)$(BY)/done.json
	$(RUN_ON) predict $(call yamls,$(1),$(SEGMENT) $(PREDICT)) $(call given,$(1),$(2),$(PREDICT)$(BY)-$(3)) $(ARGS_segment) \
	  --data.init_args.predict_split $(3) --ckpt_path $(call folder,$(1),$(2))/$(SEGMENT)$(BY)/checkpoints/last.ckpt

$(call folder,$(1),$(2))/score-$(SEGMENT)$(BY)-$(3)/done.json: $(call folder,$(1),$(2))/$(PREDICT)$(BY)-$(3)/done.json
	$(FS) evaluate --masks =$(call kind,$(1),$(2),$(PREDICT)$(BY)/masks,$(3)) \
	  --masks crf=$(call kind,$(1),$(2),$(PREDICT)$(BY)/masks-crf,$(3)) $(call score,$(1),$(2),score-$(SEGMENT)$(BY),$(3))
endef

CHAINS := sfc-voc sfc-coco cti-voc cti-coco
# $(1) experiment, $(2) seed; a rule whose YAML is not there is never asked for
define chain_rules
$(eval $(call chain_fits,$(1),$(2)))
$(foreach n,irn psa,$(eval $(call chain_affinity,$(1),$(2),$(n))))
$(foreach p,$(sort $($(1).of.train) $($(1).of.val)),$(eval $(call chain_maps,$(1),$(2),$(p))) \
  $(foreach n,irn psa,$(eval $(call chain_labels,$(1),$(2),$(p),$(n),$(call stage,$($(n).seeds)),$(call stage,$($(n).edges)),$($(n).labels)))))
$(foreach p,train val,$(eval $(call chain_scores,$(1),$(2),$(p),$($(1).of.$(p)))))
endef
$(foreach e,$(CHAINS),$(foreach s,$(SEEDS),$(eval $(call chain_rules,$(e),$(s)))))
# $(1) experiment: all its scores. The YAMLs come first: a SEGMENT or an AFFINITY that the experiment has not is refused before
# anything is trained
chain = $($(1).yaml)/$(SEGMENT).yaml $($(1).yaml)/seeds$(BY).yaml \
  $(foreach s,$(SEEDS),$(foreach p,$(SPLITS),$(foreach k,score score-labels$(BY) score-$(SEGMENT)$(BY),$(call folder,$(1),$(s))/$(k)-$(p)/done.json)))

.PHONY: $(CHAINS)
sfc-voc: $(call chain,sfc-voc) ## SFC on PASCAL VOC, the whole chain: classifier, maps, seeds, IRN, labels, DeepLab, scores of each
	$(FS) report runs/sfc-voc$(call dash,$(RUN))

sfc-coco: $(call chain,sfc-coco) ## SFC on COCO 2014, the whole chain (seed labels by CRF, no IRN)
	$(FS) report runs/sfc-coco$(call dash,$(RUN))

cti-voc: $(call chain,cti-voc) ## CTI on PASCAL VOC, the whole chain; AFFINITY=psa has PSA in the place of IRN
	$(FS) report runs/cti-voc$(call dash,$(RUN))

cti-coco: $(call chain,cti-coco) ## CTI on COCO 2014, the whole chain with IRN
	$(FS) report runs/cti-coco$(call dash,$(RUN))

# Every kind of map of the first val images, and panels of them: too much to keep of all. $(1) experiment, $(2) seed
PICTURES ?= 6
OF ?= cti-voc
define cti_pictures
$(call folder,$(1),$(2))/pictures-val/done.json: $(call files,$(1),cam) $(call folder,$(1),$(2))/classify/done.json
	$(RUN_ON) predict $(call yamls,$(1),classify cam) $(call given,$(1),$(2),cam-parts) $(ARGS_classify) --data.init_args.predict_split val --data.init_args.limit $(PICTURES) \
	  --model.init_args.save_parts true --ckpt_path $(call folder,$(1),$(2))/classify/checkpoints/$(CKPT).ckpt \
	  + evaluate --maps $(call folder,$(1),$(2))/cam-parts/maps --sweep cam,r,mt,f,q --limit $(PICTURES) --pictures $(PICTURES) $(call score,$(1),$(2),pictures,val)
endef
$(foreach s,$(SEEDS),$(eval $(call cti_pictures,$(OF),$(s))))

.PHONY: cti-pictures
cti-pictures: $(foreach s,$(SEEDS),$(call folder,$(OF),$(s))/pictures-val/done.json) ## maps of every kind, background token and infusion of PICTURES=6 val images of OF=cti-voc
	@echo "pictures: $(foreach s,$(SEEDS),$(call folder,$(OF),$(s))/pictures-val/pictures)"

# The rows of CTI's ablation: classifier, maps of the train images (not of trainaug), their score. `infusion-3` is `full`.
ROWS ?= baseline bg intra full $(addprefix infusion-,2 4 5 6 7 8 9 10)
# $(1) row
row = cti-ablation-$(1)
# $(1) row, $(2) seed, $(3) stage: what its Trainer stages are given
row_given = --run.name $(1)$(call dash,$(RUN)) --run.stage $(3) --seed_everything $(2) --data.init_args.root $(cti-voc.root) $(ARGS) $(ARGS_classify)
# $(1) row, $(2) seed
define ablation
$(call folder,$(call row,$(1)),$(2))/classify/done.json: $(call files,cti-voc,classify ablation/$(1)) runs/$(call row,$(1))$(call dash,$(RUN))/.settings | $(READY)
	$(RUN_ON) fit $(call yamls,cti-voc,classify ablation/$(1)) $(call row_given,$(1),$(2),classify)

$(call folder,$(call row,$(1)),$(2))/cam-train/done.json: $(call files,cti-voc,cam) $(call folder,$(call row,$(1)),$(2))/classify/done.json
	$(RUN_ON) predict $(call yamls,cti-voc,classify ablation/$(1) cam) $(call row_given,$(1),$(2),cam-train) \
	  --data.init_args.predict_split train --ckpt_path $(call folder,$(call row,$(1)),$(2))/classify/checkpoints/$(CKPT).ckpt

$(call folder,$(call row,$(1)),$(2))/score-train/done.json: $(call folder,$(call row,$(1)),$(2))/cam-train/done.json
	$(FS) evaluate --maps $(call folder,$(call row,$(1)),$(2))/cam-train/maps --sweep $(cti-voc.sweep) \
	  --config $(cti-voc.yaml)/classify.yaml --data.init_args.root $(cti-voc.root) --split train --train-split $(cti-voc.labelled) \
	  --experiment cti-ablation --stage score-train --out $(call folder,$(call row,$(1)),$(2))/score-train --quiet --pictures 6
endef
$(foreach r,$(ROWS),$(foreach s,$(SEEDS),$(eval $(call ablation,$(r),$(s)))))

.PHONY: cti-ablation
# as above, the rows' YAMLs come first
cti-ablation: $(ROWS:%=$(cti-voc.yaml)/ablation/%.yaml) $(foreach r,$(ROWS),$(foreach s,$(SEEDS),$(call folder,$(call row,$(r)),$(s))/score-train/done.json)) ## CTI's ablation on VOC, seeds of the train images in one table; ROWS="baseline bg" picks rows
	$(FS) report $(foreach r,$(ROWS),runs/$(call row,$(r))$(call dash,$(RUN)))

# ---------------------------------------------------------------- few-shot segmentation

# meta-train on a fold's base classes -> episodes of its own classes, all base seeds -> table. METHOD and BACKBONE are overlays in
# experiments/dsmf/{method,backbone}; METHOD=prototype and METHOD=foreground are baselines of their own. SELECT says what chooses
# the checkpoint: base (held-out base classes), novel (the tested episodes, the field's habit) or last (nothing).
FOLD ?= 0
SHOT ?= 1
SHOTS ?= 1 5
METHOD ?=
BACKBONE ?=
PROTOCOL ?=
SELECT ?= base
PRETRAIN ?=
$(if $(filter base novel last,$(SELECT)),,$(error SELECT=$(SELECT): write base, novel or last))
$(if $(filter yes,$(PRETRAIN))$(if $(PRETRAIN),,-),,$(error PRETRAIN=$(PRETRAIN): write yes, or leave it out))
# $(1) start of targets, $(2) their protocols
few_protocol = $(if $(filter $(1)%,$(MAKECMDGOALS)),$(if $(filter $(PROTOCOL),$(2)),,$(if $(PROTOCOL),$(error PROTOCOL=$(PROTOCOL): $(1) has $(2)))))
$(call few_protocol,dsmf-isaid5i,P1 P2)$(call few_protocol,dsmf-dlrsd,D1 D2)
dsmf-isaid5i.yaml := experiments/dsmf/isaid5i
dsmf-isaid5i.root := $(or $(ROOT),data/iSAID_patches)
dsmf-dlrsd.yaml := experiments/dsmf/dlrsd
dsmf-dlrsd.root := $(or $(ROOT),data/DLRSD)

empty :=
FEW_NAME := $(subst $(empty) $(empty),-,$(strip $(METHOD) $(BACKBONE) $(filter-out P1 D1,$(PROTOCOL)) $(filter novel,$(SELECT)) $(if $(PRETRAIN),pretrained) $(RUN)))
# a task of its own, or the net with what lies over it
FEW_TASK := $(or $(filter prototype foreground,$(METHOD)),train)
FEW_OVERLAYS := $(patsubst %,experiments/dsmf/method/%.yaml,$(filter-out prototype foreground,$(METHOD))) \
  $(if $(filter foreground,$(METHOD)),,$(BACKBONE:%=experiments/dsmf/backbone/%.yaml))
FEW_CKPT := $(if $(filter last,$(SELECT))$(filter prototype,$(METHOD)),last,$(CKPT))
# $(1) experiment, $(2) fold, $(3) seed
few_folder = runs/$(1)$(call dash,$(FEW_NAME))/fold$(2)/seed$(3)
# the backbone of PRETRAIN=yes is the same for every METHOD: $(1) experiment, $(2) fold, $(3) seed
FEW_BACKBONE := $(subst $(empty) $(empty),-,$(strip backbone $(BACKBONE) $(filter-out P1 D1,$(PROTOCOL)) $(RUN)))
few_backbone = runs/$(1)-$(FEW_BACKBONE)/fold$(2)/seed$(3)/pretrain
# $(1) experiment, $(2) task: its YAMLs, and the same as words
few_files = experiments/_base/trainer.yaml $($(1).yaml)/$(2).yaml $(FEW_OVERLAYS)
few_yamls = $(foreach y,$(call few_files,$(1),$(2)),--config $(y))
# $(1) experiment, $(2) fold, $(3) seed, $(4) stage
few_given = --run.name "$(FEW_NAME)" --run.stage $(4) --run.fold $(2) --seed_everything $(3) --data.init_args.root $($(1).root) \
  --data.init_args.fold $(2) $(PROTOCOL:%=--data.init_args.protocol %) $(if $(filter novel,$(SELECT)),--data.init_args.val_classes novel) $(ARGS)

# $(1) experiment, $(2) fold, $(3) seed
define few_fit
$(call few_backbone,$(1),$(2),$(3))/done.json: $($(1).yaml)/pretrain.yaml experiments/_base/trainer.yaml $(BACKBONE:%=experiments/dsmf/backbone/%.yaml) runs/$(1)-$(FEW_BACKBONE)/.settings | $(READY)
	$(RUN_ON) fit $(BASE) --config $($(1).yaml)/pretrain.yaml $(BACKBONE:%=--config experiments/dsmf/backbone/%.yaml) \
	  --run.name $(FEW_BACKBONE) --run.fold $(2) --seed_everything $(3) --data.init_args.root $($(1).root) --data.init_args.fold $(2) \
	  $(PROTOCOL:%=--data.init_args.protocol %) $(ARGS_pretrain) $(ON)

$(call few_folder,$(1),$(2),$(3))/train/done.json: $(call few_files,$(1),$(FEW_TASK)) $(if $(PRETRAIN),$(call few_backbone,$(1),$(2),$(3))/done.json) runs/$(1)$(call dash,$(FEW_NAME))/.settings | $(READY)
	$(RUN_ON) fit $(call few_yamls,$(1),$(FEW_TASK)) $(call few_given,$(1),$(2),$(3),train) \
	  $(if $(PRETRAIN),--model.init_args.weights $(call few_backbone,$(1),$(2),$(3))/checkpoints/$(CKPT).ckpt)
endef

# $(1) experiment, $(2) fold, $(3) seed, $(4) shots
define few_test
$(call few_folder,$(1),$(2),$(3))/$(4)shot-test/done.json: $($(1).yaml)/test.yaml $(call few_files,$(1),$(FEW_TASK)) \
  $(if $(filter foreground,$(FEW_TASK)),runs/$(1)$(call dash,$(FEW_NAME))/.settings,$(call few_folder,$(1),$(2),$(3))/train/done.json) | $(READY)
	$(RUN_ON) test $(call few_yamls,$(1),$(FEW_TASK)) --config $($(1).yaml)/test.yaml $(call few_given,$(1),$(2),$(3),$(4)shot) \
	  --data.init_args.recipe.init_args.shots $(4) $(if $(filter foreground,$(FEW_TASK)),,--ckpt_path $(call few_folder,$(1),$(2),$(3))/train/checkpoints/$(FEW_CKPT).ckpt)
endef

# $(1) experiment
define few_shot
$(foreach s,$(SEEDS),$(foreach f,$(sort 0 1 2 $(FOLD)),$(eval $(call few_fit,$(1),$(f),$(s)))$(foreach k,$(sort $(SHOT) $(SHOTS)),$(eval $(call few_test,$(1),$(f),$(s),$(k))))))
endef
FEW := dsmf-isaid5i dsmf-dlrsd
$(foreach e,$(FEW),$(eval $(call few_shot,$(e))))
# $(1) experiment, $(2) folds, $(3) shots: test stages, behind the overlays, so that one that is not there is refused first
few_tests = $(FEW_OVERLAYS) $(foreach f,$(2),$(foreach s,$(SEEDS),$(foreach k,$(3),$(call few_folder,$(1),$(f),$(s))/$(k)shot-test/done.json)))

.PHONY: $(FEW) $(FEW:%=%-all) $(FEW:%=%-episodes)
dsmf-isaid5i: $(call few_tests,dsmf-isaid5i,$(FOLD),$(SHOT)) ## DSMF-Net on iSAID-5i, FOLD=0 SHOT=1; PROTOCOL=P2, SELECT=novel, METHOD=fem, BACKBONE=vgg16
	$(FS) report runs/dsmf-isaid5i$(call dash,$(FEW_NAME))

dsmf-isaid5i-all: $(call few_tests,dsmf-isaid5i,0 1 2,$(SHOTS)) ## the same, folds 0 to 2, 1 and 5 shots, one table
	$(FS) report runs/dsmf-isaid5i$(call dash,$(FEW_NAME))

dsmf-dlrsd: $(call few_tests,dsmf-dlrsd,$(FOLD),$(SHOT)) ## DSMF-Net on DLRSD, FOLD=0 SHOT=1; PROTOCOL=D2 and the variables above
	$(FS) report runs/dsmf-dlrsd$(call dash,$(FEW_NAME))

dsmf-dlrsd-all: $(call few_tests,dsmf-dlrsd,0 1 2,$(SHOTS)) ## the same, folds 0 to 2, 1 and 5 shots, one table
	$(FS) report runs/dsmf-dlrsd$(call dash,$(FEW_NAME))

# $(1) experiment
few_episodes = $(FS) episodes --config $($(1).yaml)/train.yaml --data.init_args.root $($(1).root) --data.init_args.fold $(FOLD) \
  $(PROTOCOL:%=--data.init_args.protocol %) --data.init_args.recipe.init_args.shots $(SHOT) \
  --out runs/episodes/$(1)$(call dash,$(filter-out P1 D1,$(PROTOCOL)))-fold$(FOLD)-$(SHOT)shot-seed{seed}.csv
dsmf-isaid5i-episodes: $(READY) ## the episodes of FOLD, SHOT and PROTOCOL as files, one per base seed, so that others run exactly these
	$(call few_episodes,dsmf-isaid5i)

dsmf-dlrsd-episodes: $(READY) ## the same for DLRSD
	$(call few_episodes,dsmf-dlrsd)

# ---------------------------------------------------------------- SFC in miniature

MINI := experiments/miniature/sfc
MINI_WORLDS ?= longtail balanced
MINI_METHODS ?= baseline sfc
PRETRAINED := runs/mini-pretrain/seed0/tags
MINI_TARGETS := demo claims mini-sfc mini-psa mini-cti mini-cti-chain mini-dsmf mini-mevt mini-mevt-real

# Small CPU steps spend more time in page faults than in arithmetic when glibc hands every freed tensor back to the
# kernel; keeping the memory makes them about twice as fast (measured: 0.43 s against 1.16 s a step).
$(MINI_TARGETS) test test-slow benchmark: export MALLOC_MMAP_THRESHOLD_ := 2000000000
$(MINI_TARGETS) test test-slow benchmark: export MALLOC_TRIM_THRESHOLD_ := 8000000000
$(MINI_TARGETS) test test-slow benchmark: export MALLOC_TOP_PAD_ := 100000000
$(MINI_TARGETS): export OMP_NUM_THREADS := 1
# two processes share the terminal: plain lines instead of bars
$(MINI_TARGETS): export FRUGALSEG_LINES := 1

runs/worlds/attributes/world.json: | $(READY)
	$(FS) miniature attributes --root $(@D) --images 2400 --images-val 100

runs/worlds/voc-longtail-seed%/world.json: | $(READY)
	$(FS) miniature voc --root $(@D) --seed $*

runs/worlds/voc-balanced-seed%/world.json: | $(READY)
	$(FS) miniature voc --root $(@D) --seed $* --balanced

$(PRETRAINED)/done.json: $(MINI)/pretrain.yaml experiments/_base/trainer.yaml runs/worlds/attributes/world.json
	$(FS) fit $(BASE) --config $(MINI)/pretrain.yaml $(CPU) --run.wandb false

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

# The chain behind the maps, for one run: $(1) seed, $(2) world-method. All its stages share one process; each has its own
# done.json, so an interrupted chain goes on where it was. MINI_LIMIT images at most are labelled.
MINI_LIMIT ?= 700
define mini_chain
MINI_CHAIN_$(2)_$(1) := runs/mini-sfc-$(2)/seed$(1)
$$(MINI_CHAIN_$(2)_$(1))/score-segment-val/done.json: D = runs/mini-sfc-$(2)/seed$(1)
$$(MINI_CHAIN_$(2)_$(1))/score-segment-val/done.json: DATA = --data.init_args.root runs/worlds/voc-$(firstword $(subst -, ,$(2)))-seed$(1) --data.init_args.limit $(MINI_LIMIT)
$$(MINI_CHAIN_$(2)_$(1))/score-segment-val/done.json: SETTINGS = $(CPU) --run.name $(2) --seed_everything $(1) --run.wandb false $$(DATA)
$$(MINI_CHAIN_$(2)_$(1))/score-segment-val/done.json: WEIGHTS = --model.init_args.weights $(PRETRAINED)/checkpoints/last.ckpt
$$(MINI_CHAIN_$(2)_$(1))/score-segment-val/done.json: $$(MINI_CHAIN_$(2)_$(1))/score/done.json
	$(FS) $$(foreach s,train val,predict $(BASE) --config $(MINI)/classify.yaml --config $(MINI)/cam.yaml $$(SETTINGS) --run.stage cam-$$(s) \
	    --data.init_args.predict_split $$(s) --model.init_args.save_logits false --ckpt_path $$(D)/classify/checkpoints/last.ckpt \
	    + $$(call mini_score,score,$$(s)) --maps $$(D)/cam-$$(s)/maps --sweep m0,mw,mp \
	    + crf --config $(MINI)/seeds.yaml --maps $$(D)/cam-$$(s)/maps $$(call mini_verb,seeds,$$(s)) +) \
	  fit $(BASE) --config $(MINI)/irn.yaml $$(SETTINGS) $$(WEIGHTS) --data.init_args.pseudo_labels $$(D)/seeds-train/seed_labels \
	  $$(foreach s,train val,+ predict $(BASE) --config $(MINI)/irn.yaml --config $(MINI)/edges.yaml $$(SETTINGS) $$(WEIGHTS) --run.stage edges-$$(s) \
	    --data.init_args.predict_split $$(s) --ckpt_path $$(D)/irn/checkpoints/last.ckpt \
	    + walk --config $(MINI)/labels.yaml --maps $$(D)/cam-$$(s)/maps --edges $$(D)/edges-$$(s)/edges $$(call mini_verb,labels,$$(s)) \
	    + $$(call mini_score,score-labels,$$(s)) --masks crf=$$(D)/seeds-$$(s)/crf --masks seed_labels=$$(D)/seeds-$$(s)/seed_labels \
	      --masks refined=$$(D)/labels-$$(s)/refined --masks pseudo=$$(D)/labels-$$(s)/pseudo) \
	  + fit $(BASE) --config $(MINI)/segment.yaml $$(SETTINGS) $$(WEIGHTS) --data.init_args.pseudo_labels $$(D)/labels-train/pseudo \
	  $$(foreach s,train val,+ predict $(BASE) --config $(MINI)/segment.yaml --config $(MINI)/predict.yaml $$(SETTINGS) $$(WEIGHTS) \
	    --run.stage predict-$$(s) --data.init_args.predict_split $$(s) --ckpt_path $$(D)/segment/checkpoints/last.ckpt \
	    + $$(call mini_score,score-segment,$$(s)) --masks =$$(D)/predict-$$(s)/masks --masks crf=$$(D)/predict-$$(s)/masks-crf)
endef
# $(1) stage, $(2) split
mini_verb = --split $(2) $(DATA) --experiment mini-sfc --stage $(1)-$(2) --out $(D)/$(1)-$(2)
mini_score = evaluate --config $(MINI)/classify.yaml $(DATA) --split $(2) --experiment mini-sfc --stage $(1)-$(2) --out $(D)/$(1)-$(2) --quiet

# The same with PSA's affinities instead of IRN's edges, as far as labels: $(1) seed, $(2) world-method
define mini_psa
MINI_PSA_$(2)_$(1) := runs/mini-sfc-$(2)/seed$(1)
$$(MINI_PSA_$(2)_$(1))/score-labels-psa-val/done.json: D = runs/mini-sfc-$(2)/seed$(1)
$$(MINI_PSA_$(2)_$(1))/score-labels-psa-val/done.json: DATA = --data.init_args.root runs/worlds/voc-$(firstword $(subst -, ,$(2)))-seed$(1) --data.init_args.limit $(MINI_LIMIT)
$$(MINI_PSA_$(2)_$(1))/score-labels-psa-val/done.json: SETTINGS = $(CPU) --run.name $(2) --seed_everything $(1) --run.wandb false $$(DATA) \
  --model.init_args.weights $(PRETRAINED)/checkpoints/last.ckpt
$$(MINI_PSA_$(2)_$(1))/score-labels-psa-val/done.json: $$(MINI_CHAIN_$(2)_$(1))/score-segment-val/done.json
	$(FS) fit $(BASE) --config $(MINI)/psa.yaml $$(SETTINGS) --data.init_args.pseudo_labels $$(D)/seeds-train/seed_labels \
	  $$(foreach s,train val,+ predict $(BASE) --config $(MINI)/psa.yaml --config $(MINI)/affinity.yaml $$(SETTINGS) --run.stage affinity-$$(s) \
	    --data.init_args.predict_split $$(s) --ckpt_path $$(D)/psa/checkpoints/last.ckpt \
	    + walk --config $(MINI)/labels-psa.yaml --maps $$(D)/cam-$$(s)/maps --edges $$(D)/affinity-$$(s)/affinities $$(call mini_verb,labels-psa,$$(s)) \
	    + $$(call mini_score,score-labels-psa,$$(s)) --masks refined=$$(D)/labels-psa-$$(s)/refined)
endef

MINI_CHAINS ?= longtail-sfc
$(foreach s,$(SEEDS),$(foreach c,$(MINI_CHAINS),$(eval $(call mini_chain,$(s),$(c)))$(eval $(call mini_psa,$(s),$(c)))))

# chains first: they are longest, and the other runs fill the second core meanwhile
MINI_SCORES = $(foreach c,$(MINI_CHAINS),$(foreach s,$(SEEDS),runs/mini-sfc-$(c)/seed$(s)/score-segment-val/done.json)) \
  $(foreach w,$(MINI_WORLDS),$(foreach m,$(MINI_METHODS),$(foreach s,$(SEEDS),runs/mini-sfc-$(w)-$(m)/seed$(s)/score/done.json)))
.PHONY: mini-sfc mini-sfc-scores mini-psa mini-psa-scores
mini-sfc-scores: $(MINI_SCORES)

mini-sfc: $(READY) ## SFC and its baseline on small synthetic worlds, SFC through the whole chain, two processes at a time; SEEDS="0 1 2" aggregates
	@$(MAKE) --no-print-directory -j2 mini-sfc-scores
	$(FS) report $(foreach w,$(MINI_WORLDS),$(foreach m,$(MINI_METHODS),runs/mini-sfc-$(w)-$(m)))

mini-psa-scores: $(foreach c,$(MINI_CHAINS),$(foreach s,$(SEEDS),runs/mini-sfc-$(c)/seed$(s)/score-labels-psa-val/done.json))

mini-psa: $(READY) ## the labels of mini-sfc's chain with PSA's affinities beside those with IRN's edges
	@$(MAKE) --no-print-directory -j2 mini-psa-scores
	$(FS) report $(foreach c,$(MINI_CHAINS),runs/mini-sfc-$(c))

# ---------------------------------------------------------------- CTI in miniature

MINI_CTI := experiments/miniature/cti
CTI_ROWS ?= baseline bg intra full
# $(1) row, or warm: its YAMLs; full is classify.yaml itself
cti_config = $(BASE) --config $(MINI_CTI)/classify.yaml $(if $(filter-out full,$(1)),--config $(MINI_CTI)/$(1).yaml)
# $(1) seed
cti_given = $(CPU) --seed_everything $(1) --run.wandb false --data.init_args.root runs/worlds/voc-balanced-seed$(1) \
  --model.init_args.stem_weights $(PRETRAINED)/checkpoints/last.ckpt $(ARGS)

# the first phase, from which all rows fork: $(1) seed
define mini_cti_warm
runs/mini-cti-warm/seed$(1)/classify/done.json: $(MINI_CTI)/classify.yaml $(MINI_CTI)/warm.yaml experiments/_base/trainer.yaml experiments/_base/cpu.yaml \
  $(PRETRAINED)/done.json runs/worlds/voc-balanced-seed$(1)/world.json runs/mini-cti-warm/.settings
	$(FS) fit $(call cti_config,warm) $(call cti_given,$(1))
endef

# $(1) seed, $(2) row
define mini_cti
runs/mini-cti-$(2)/seed$(1)/score/done.json: $(sort $(MINI_CTI)/classify.yaml $(MINI_CTI)/cam.yaml $(if $(filter-out full,$(2)),$(MINI_CTI)/$(2).yaml)) \
  runs/mini-cti-warm/seed$(1)/classify/done.json runs/mini-cti-$(2)/.settings
	$(FS) fit $(call cti_config,$(2)) $(call cti_fork,$(1)) \
	  + predict $(call cti_config,$(2)) --config $(MINI_CTI)/cam.yaml $(call cti_fork,$(1)) --ckpt_path runs/mini-cti-$(2)/seed$(1)/classify/checkpoints/last.ckpt \
	  + evaluate --maps runs/mini-cti-$(2)/seed$(1)/cam/maps --sweep cam,r,f,q --root runs/worlds/voc-balanced-seed$(1) --split train --limit 240 \
	    --experiment mini-cti --out runs/mini-cti-$(2)/seed$(1)/score --pictures 8 --quiet
endef
# $(1) seed
cti_fork = $(call cti_given,$(1)) --model.init_args.weights runs/mini-cti-warm/seed$(1)/classify/checkpoints/last.ckpt

$(foreach s,$(SEEDS),$(eval $(call mini_cti_warm,$(s)))$(foreach r,$(sort $(CTI_ROWS) full),$(eval $(call mini_cti,$(s),$(r)))))

# The chain behind the seeds of `full`, as mini-sfc's, but that masks of the train images are a process of their own, which the
# demo does without: $(1) seed
define mini_cti_chain
$(foreach s,train val,runs/mini-cti-full/seed$(1)/score-segment-$(s)/done.json): D = runs/mini-cti-full/seed$(1)
$(foreach s,train val,runs/mini-cti-full/seed$(1)/score-segment-$(s)/done.json): DATA = --data.init_args.root runs/worlds/voc-balanced-seed$(1) --data.init_args.limit $(MINI_LIMIT)
$(foreach s,train val,runs/mini-cti-full/seed$(1)/score-segment-$(s)/done.json): SETTINGS = $(CPU) --run.experiment mini-cti --run.name full --seed_everything $(1) --run.wandb false $$(DATA)
$(foreach s,train val,runs/mini-cti-full/seed$(1)/score-segment-$(s)/done.json): WEIGHTS = --model.init_args.weights $(PRETRAINED)/checkpoints/last.ckpt
runs/mini-cti-full/seed$(1)/score-segment-val/done.json: runs/mini-cti-full/seed$(1)/score/done.json $(MINI_CTI)/seeds.yaml $(MINI_CTI)/labels.yaml \
  $(patsubst %,$(MINI)/%.yaml,irn edges segment predict)
	$(FS) $$(foreach s,train val,predict $(call cti_config,full) --config $(MINI_CTI)/cam.yaml $$(SETTINGS) --run.stage cam-$$(s) --data.init_args.predict_split $$(s) \
	    --model.init_args.save_parts false --ckpt_path $$(D)/classify/checkpoints/last.ckpt \
	    + $$(call cti_score,score,$$(s)) --maps $$(D)/cam-$$(s)/maps --sweep cam \
	    + crf --config $(MINI_CTI)/seeds.yaml --maps $$(D)/cam-$$(s)/maps $$(call cti_verb,seeds,$$(s)) +) \
	  fit $(BASE) --config $(MINI)/irn.yaml $$(SETTINGS) $$(WEIGHTS) --data.init_args.pseudo_labels $$(D)/seeds-train/seed_labels \
	  $$(foreach s,train val,+ predict $(BASE) --config $(MINI)/irn.yaml --config $(MINI)/edges.yaml $$(SETTINGS) $$(WEIGHTS) --run.stage edges-$$(s) \
	    --data.init_args.predict_split $$(s) --ckpt_path $$(D)/irn/checkpoints/last.ckpt \
	    + walk --config $(MINI_CTI)/labels.yaml --maps $$(D)/cam-$$(s)/maps --edges $$(D)/edges-$$(s)/edges $$(call cti_verb,labels,$$(s)) \
	    + $$(call cti_score,score-labels,$$(s)) --masks crf=$$(D)/seeds-$$(s)/crf --masks seed_labels=$$(D)/seeds-$$(s)/seed_labels \
	      --masks refined=$$(D)/labels-$$(s)/refined) \
	  + fit $(BASE) --config $(MINI)/segment.yaml $$(SETTINGS) $$(WEIGHTS) --data.init_args.pseudo_labels $$(D)/labels-train/refined \
	  + $$(call cti_masks,val)

runs/mini-cti-full/seed$(1)/score-segment-train/done.json: runs/mini-cti-full/seed$(1)/score-segment-val/done.json
	$(FS) $$(call cti_masks,train)
endef
# $(1) stage, $(2) split
cti_verb = --split $(2) $(DATA) --experiment mini-cti --stage $(1)-$(2) --out $(D)/$(1)-$(2)
cti_masks = predict $(BASE) --config $(MINI)/segment.yaml --config $(MINI)/predict.yaml $(SETTINGS) $(WEIGHTS) \
  --run.stage predict-$(1) --data.init_args.predict_split $(1) --ckpt_path $(D)/segment/checkpoints/last.ckpt \
  + $(call cti_score,score-segment,$(1)) --masks =$(D)/predict-$(1)/masks --masks crf=$(D)/predict-$(1)/masks-crf
cti_score = evaluate --config $(MINI_CTI)/classify.yaml $(DATA) --split $(2) --experiment mini-cti --stage $(1)-$(2) --out $(D)/$(1)-$(2) --quiet

$(foreach s,$(SEEDS),$(eval $(call mini_cti_chain,$(s))))

.PHONY: mini-cti mini-cti-scores mini-cti-chain mini-cti-chain-scores
mini-cti-scores: $(foreach s,$(SEEDS),$(foreach r,$(CTI_ROWS),runs/mini-cti-$(r)/seed$(s)/score/done.json))

mini-cti: $(READY) ## CTI on the balanced miniature world: baseline, + background token, + I-CTI, + C-CTI; SEEDS="0 1 2" aggregates
	@$(MAKE) --no-print-directory -j2 mini-cti-scores
	$(FS) report $(CTI_ROWS:%=runs/mini-cti-%)

mini-cti-chain-scores: $(foreach s,$(SEEDS),$(foreach p,val train,runs/mini-cti-full/seed$(s)/score-segment-$(p)/done.json))

mini-cti-chain: $(READY) ## the seeds of mini-cti's last row through CRF, IRN, random walk and segmenter to masks
	@$(MAKE) --no-print-directory -j2 mini-cti-chain-scores
	$(FS) report runs/mini-cti-full

# ---------------------------------------------------------------- DSMF-Net in miniature

MINI_DSMF := experiments/miniature/dsmf
MINI_FOLDS ?= 0 1 2
# two groups per fold, each a process of its own that works the frozen features of its tiles out once
DSMF_ROWS := full no-graph no-prior fem prototype foreground
DSMF_GROUPS := full+no-graph no-prior+fem+prototype+foreground
TILES := runs/worlds/isaid5i-seed0

$(TILES)/world.json: | $(READY)
	$(FS) miniature isaid --root runs/worlds/isaid-seed0 --scenes 400 --scenes-val 80 --size 192 \
	  + data prepare isaid5i --raw runs/worlds/isaid-seed0 --root $(@D) --tile 96 --step 77 --lists
	cp runs/worlds/isaid-seed0/world.json $@

# $(1) fold
mini_backbone = runs/mini-dsmf-backbone/fold$(1)/seed0/pretrain
# $(1) row, $(2) fold, $(3) seed
mini_few = runs/mini-dsmf-$(1)/fold$(2)/seed$(3)
mini_few_yamls = $(BASE) --config $(MINI_DSMF)/$(or $(filter prototype foreground,$(1)),train).yaml \
  $(patsubst %,--config experiments/dsmf/method/%.yaml,$(filter-out full prototype foreground,$(1))) $(CPU)
mini_few_given = --run.name $(1) --run.fold $(2) --seed_everything $(3) --run.wandb false --data.init_args.root $(TILES) --data.init_args.fold $(2) \
  $(if $(filter foreground,$(1)),,--model.init_args.weights $(call mini_backbone,$(2))/checkpoints/last.ckpt) $(ARGS)
mini_few_fit = $(if $(filter foreground,$(1)),,fit $(call mini_few_yamls,$(1)) $(call mini_few_given,$(1),$(2),$(3)) +)
mini_few_test = test $(call mini_few_yamls,$(1)) --config $(MINI_DSMF)/test.yaml $(call mini_few_given,$(1),$(2),$(3)) --run.stage $(4)shot \
  --data.init_args.recipe.init_args.shots $(4) $(if $(filter foreground,$(1)),,--ckpt_path $(call mini_few,$(1),$(2),$(3))/train/checkpoints/last.ckpt)

# $(1) fold
define mini_dsmf_backbone
$(call mini_backbone,$(1))/done.json: $(MINI_DSMF)/pretrain.yaml experiments/_base/trainer.yaml experiments/_base/cpu.yaml $(TILES)/world.json
	$(FS) fit $(BASE) --config $(MINI_DSMF)/pretrain.yaml $(CPU) --run.wandb false --run.fold $(1) --data.init_args.root $(TILES) --data.init_args.fold $(1)
endef

# $(1) fold, $(2) seed, $(3) rows joined by +
define mini_dsmf
$(call mini_few,$(lastword $(subst +, ,$(3))),$(1),$(2))/5shot-test/done.json: $(wildcard $(MINI_DSMF)/*.yaml experiments/dsmf/method/*.yaml) \
  $(call mini_backbone,$(1))/done.json runs/mini-dsmf-$(lastword $(subst +, ,$(3)))/.settings
	$(FS) $(foreach r,$(subst +, ,$(3)),$(if $(filter $(r),$(firstword $(subst +, ,$(3)))),,+) $(call mini_few_fit,$(r),$(1),$(2)) \
	  $(call mini_few_test,$(r),$(1),$(2),1) + $(call mini_few_test,$(r),$(1),$(2),5))
endef
# what the demo runs of it: one process, whose last stage is no other group's
DSMF_DEMO := prototype+full
$(foreach f,$(MINI_FOLDS),$(eval $(call mini_dsmf_backbone,$(f)))$(foreach s,$(SEEDS),$(foreach g,$(DSMF_GROUPS) $(DSMF_DEMO),$(eval $(call mini_dsmf,$(f),$(s),$(g))))))

.PHONY: mini-dsmf mini-dsmf-scores
mini-dsmf-scores: $(foreach g,$(DSMF_GROUPS),$(foreach f,$(MINI_FOLDS),$(foreach s,$(SEEDS),$(call mini_few,$(lastword $(subst +, ,$(g))),$(f),$(s))/5shot-test/done.json)))

mini-dsmf: $(READY) ## DSMF-Net, its ablations and baselines on the miniature iSAID-5i: three folds, 1 and 5 shots, five base seeds
	@$(MAKE) --no-print-directory -j2 mini-dsmf-scores
	$(FS) report $(DSMF_ROWS:%=runs/mini-dsmf-%)

include experiments/mevt.mk
include experiments/demo.mk
include experiments/claims.mk
include experiments/official.mk
include experiments/segment.mk
include experiments/folder.mk
include experiments/supply.mk
include experiments/fuzz.mk
include experiments/faults.mk
