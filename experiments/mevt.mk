# Included by the Makefile: MEVT, its ways to be judged, and the two studies of it.

# ---------------------------------------------------------------- MEVT

# Pretraining -> linear probe | fine-tuning | clusters | nearest neighbours, each in a folder of its own with its own done.json.
# DATA and METHOD are overlays of experiments/mevt/pretrain.yaml (METHOD may be several), BACKBONE of what judges: a net of the
# suite with the checkpoint that DATA, METHOD and RUN name, or somebody else's. Only mevt-pretrain pretrains: days on eight GPUs are
# not begun because ROOT, which here is the benchmark, has changed.
DATA ?= imagenet
HEAD ?=
LABELS ?=
CLUSTERS ?=
WEIGHTS ?=
OUT ?=
BENCHMARK ?= voc
ARGS_cache ?=
MEVT := experiments/mevt
MEVT_BENCHMARKS := voc coco ade20k cityscapes
mevt_root.voc := data/VOCdevkit/VOC2012
mevt_root.coco := data/coco
mevt_root.ade20k := data/ADEChallengeData2016
mevt_root.cityscapes := data/cityscapes
# $(1) words: joined by a dash
join_words = $(subst $(empty) $(empty),-,$(strip $(1)))
# now, as some targets above have a WEIGHTS of their own: SETTINGS_SEEN is asked for while they are made
MEVT_WEIGHTS := $(WEIGHTS)

# $(1) start of targets, $(2) variable, $(3) its values
mevt_one_of = $(if $(filter $(1)%,$(MAKECMDGOALS)),$(if $(filter-out $(3),$($(2)))$(word 2,$($(2))),$(error $(2)=$($(2)): $(1)* has $(3))))
$(call mevt_one_of,mevt-,DATA,imagenet coco voc images)
$(call mevt_one_of,mevt-probe-,HEAD,linear fcn)$(call mevt_one_of,mevt-probe-,PROTOCOL,L L-cached M)
$(call mevt_one_of,mevt-finetune-,HEAD,own upernet semantic-fpn fcn)
$(call mevt_one_of,mevt-cluster-,PROTOCOL,K1 K2)
$(call mevt_one_of,mevt-pictures,BENCHMARK,$(MEVT_BENCHMARKS))
$(if $(filter mevt-%-coco,$(MAKECMDGOALS)),$(call mevt_one_of,mevt-,LABELS,27 171 things12 stuff15),$(if $(filter mevt-%,$(MAKECMDGOALS)),$(if $(LABELS),$(error LABELS=$(LABELS): only mevt-*-coco has a choice of labels))))
$(if $(filter mevt-pretrain,$(MAKECMDGOALS)),$(if $(filter-out mevt-pretrain,$(MAKECMDGOALS)),$(error mevt-pretrain: ask for it alone, as ROOT and ARGS are of one target)))

# an overlay replaces what an earlier one has set: of each line one METHOD at most
mevt_at_most_one = $(if $(filter mevt-%,$(MAKECMDGOALS)),$(if $(word 2,$(filter $(1),$(METHOD))),$(error METHOD=$(METHOD): $(filter $(1),$(METHOD)) set the same thing; write one of them)))
$(call mevt_at_most_one,tiny xs vit-s16 resnet50)
$(call mevt_at_most_one,no-context no-decoder stride-8 ibot vit-s16 resnet50)
$(call mevt_at_most_one,dino densecl pixpro ibot esvit)
$(foreach m,$(if $(filter mevt-%,$(MAKECMDGOALS)),$(METHOD)),$(if $(wildcard $(MEVT)/method/$(m).yaml),,$(error METHOD=$(m): there is no $(MEVT)/method/$(m).yaml; there are $(sort $(notdir $(basename $(wildcard $(MEVT)/method/*.yaml)))))))
$(foreach b,$(if $(filter mevt-%,$(MAKECMDGOALS)),$(BACKBONE)),$(if $(wildcard $(MEVT)/backbone/$(b).yaml),,$(error BACKBONE=$(b): there is no $(MEVT)/backbone/$(b).yaml; there are $(sort $(notdir $(basename $(wildcard $(MEVT)/backbone/*.yaml)))))))

# the pretraining: its name, and its YAMLs in order
MEVT_NAME := $(call join_words,$(filter-out imagenet,$(DATA)) $(METHOD) $(RUN))
MEVT_OVERLAYS := $(patsubst %,$(MEVT)/data/%.yaml,$(filter-out imagenet,$(DATA))) $(METHOD:%=$(MEVT)/method/%.yaml)
# imagenet and coco are meant for eight GPUs
MEVT_FILES := experiments/_base/trainer.yaml $(MEVT)/pretrain.yaml $(if $(filter imagenet coco,$(DATA)),experiments/_base/ddp.yaml) $(MEVT_OVERLAYS)
# $(1) seed
mevt_pretrained = runs/mevt-pretrain$(call dash,$(MEVT_NAME))/seed$(1)/pretrain
mevt_checkpoint = $(or $(MEVT_WEIGHTS),$(call mevt_pretrained,$(1))/checkpoints/last.ckpt)

ifneq ($(filter mevt-pretrain,$(MAKECMDGOALS)),)
# $(1) seed
define mevt_pretrain
$(call mevt_pretrained,$(1))/done.json: $(MEVT_FILES) runs/mevt-pretrain$(call dash,$(MEVT_NAME))/.settings | $(READY)
	$(RUN_ON) fit $(MEVT_FILES:%=--config %) --run.name "$(MEVT_NAME)" --run.stage pretrain --seed_everything $(1) \
	  $(ROOT:%=--data.init_args.root %) $(ARGS) $(ARGS_pretrain)
endef
else
define mevt_pretrain
$(call mevt_pretrained,$(1))/done.json:
	@echo "$$@: not there; run make mevt-pretrain with the same DATA, METHOD, RUN and SEED first, or give WEIGHTS=" >&2; exit 1
endef
endif
$(foreach s,$(SEEDS),$(eval $(call mevt_pretrain,$(s))))

# The net that is judged: an overlay, and what METHOD has changed in it. Nets without `mevt_` or `-ours` in their names are others'
# and bring their own weights, unless METHOD has trained the same.
MEVT_NET := $(or $(BACKBONE),$(patsubst tiny,mevt_tiny,$(patsubst xs,mevt_xs,$(patsubst vit-s16,vit-s16-ours,$(filter tiny xs vit-s16 resnet50,$(METHOD))))))
MEVT_OWN := $(if $(MEVT_NET),$(filter mevt_% %-ours $(filter $(METHOD),resnet50),$(MEVT_NET)),yes)
mevt_option.no-context := context false
mevt_option.no-decoder := decoder false
# of a preset of MEVT, DINO's loss does not reach the decoder: what it has taught is judged, F3
mevt_option.dino := $(if $(filter vit-s16 resnet50,$(METHOD)),,.options.decoder false --model.init_args.backbone.partial true)
mevt_option.stride-8 := output_stride 8
mevt_option.resnet50 := .prefix teacher.module.backbone.net.
mevt_labels.171 := stuff171
mevt_labels.things12 := things12
mevt_labels.stuff15 := stuff15
MEVT_JUDGED := $(call join_words,$(filter-out imagenet,$(DATA)) $(METHOD) $(BACKBONE) $(mevt_labels.$(LABELS)) $(RUN))
# $(1) seed: words that name the weights, and the file that says they are there
mevt_weights = $(if $(MEVT_WEIGHTS)$(MEVT_OWN),--model.init_args.backbone.weights $(call mevt_checkpoint,$(1))) \
  $(if $(MEVT_OWN),$(foreach m,$(METHOD),$(if $(mevt_option.$(m)),--model.init_args.backbone$(if $(filter .%,$(mevt_option.$(m))),,.options.)$(mevt_option.$(m)))))
mevt_needs = $(if $(MEVT_WEIGHTS),$(wildcard $(MEVT_WEIGHTS)),$(if $(MEVT_OWN),$(call mevt_pretrained,$(1))/done.json))

# names of YAMLs and so of stages: $(1) benchmark
mevt_default.voc := L
mevt_default.coco := L
mevt_default.ade20k := M
mevt_default.cityscapes := M
mevt_small.L := l
mevt_small.M := m
mevt_small.L-cached := cached
# the FCN head has protocol L everywhere
mevt_probe = $(if $(filter fcn,$(HEAD)),fcn$(call dash,$(mevt_small.$(filter-out L,$(PROTOCOL)))),probe$(call dash,$(mevt_small.$(filter-out $(mevt_default.$(1)),$(PROTOCOL)))))
mevt_finetune = $(if $(filter fcn,$(HEAD)),fcn-finetune,$(or $(filter-out own,$(HEAD)),finetune))
mevt_cluster = cluster$(if $(filter K2,$(PROTOCOL)),-k2)$(call dash,$(CLUSTERS))
mevt_retrieval = retrieval
# a number of clusters without a YAML is a setting of K1's
mevt_yaml.cluster = $(if $(CLUSTERS),$(or $(notdir $(basename $(wildcard $(MEVT)/$(1)/$(call mevt_cluster,$(1)).yaml))),$(patsubst %-$(CLUSTERS),%,$(call mevt_cluster,$(1)))),$(call mevt_cluster,$(1)))
mevt_yaml.probe = $(call mevt_probe,$(1))
mevt_yaml.finetune = $(call mevt_finetune,$(1))
mevt_yaml.retrieval = retrieval
mevt_folder = runs/mevt-$(1)$(call dash,$(MEVT_JUDGED))/seed$(2)
mevt_stage_dir = $(call mevt_folder,$(1),$(2))/$(call mevt_$(3),$(1))$(if $(filter cluster,$(3)),-validate)
# $(1) benchmark, $(2) kind: YAMLs that have to be there
mevt_files = experiments/_base/trainer.yaml $(MEVT)/$(1)/$(call mevt_yaml.$(2),$(1)).yaml $(MEVT_NET:%=$(MEVT)/backbone/%.yaml) \
  $(patsubst %,$(MEVT)/$(1)/%.yaml,$(mevt_labels.$(LABELS)))
# $(1) benchmark, $(2) seed, $(3) kind
mevt_given = --run.name "$(MEVT_JUDGED)" --run.stage $(call mevt_$(3),$(1)) --seed_everything $(2)
mevt_data = --data.init_args.root $(or $(ROOT),$(mevt_root.$(1)))
mevt_configs = $(patsubst %,--config %,$(call mevt_files,$(1),$(2)))
mevt_clusters = $(if $(filter cluster,$(1)),$(if $(CLUSTERS),--model.init_args.clusters $(CLUSTERS)))
# features of this net alone, as another may be probed beside it
mevt_kept = runs/features/mevt-$(1)$(call dash,$(MEVT_JUDGED))-seed$(2)
mevt_cached = cache $(call mevt_configs,$(1),probe) --seed_everything $(2) \
  $(call mevt_data,$(1)) $(call mevt_weights,$(2)) $(ARGS_cache) --out $(call mevt_kept,$(1),$(2)) \
  + fit $(call mevt_configs,$(1),probe) $(call mevt_given,$(1),$(2),probe) $(call mevt_weights,$(2)) \
  --data frugalseg.stages.probe.CachedFeatures --data.init_args.index $(call mevt_kept,$(1),$(2))/cache.json \
  $(if $(CACHE),$(subst --data.init_args.cache $(CACHE),,$(ARGS)),$(ARGS))
mevt_run = $(if $(filter cluster,$(3)),validate,fit) $(call mevt_configs,$(1),$(3)) $(call mevt_given,$(1),$(2),$(3)) $(call mevt_data,$(1)) \
  $(call mevt_weights,$(2)) $(call mevt_clusters,$(3)) $(ARGS)

# $(1) benchmark, $(2) seed, $(3) kind
define mevt_judge
$(call mevt_stage_dir,$(1),$(2),$(3))/done.json: $(call mevt_files,$(1),$(3)) $(call mevt_needs,$(2)) \
  runs/mevt-$(1)$(call dash,$(MEVT_JUDGED))/.settings | $(READY)
	$(RUN_ON) $(if $(filter probeL-cached,$(3)$(PROTOCOL)),$(call mevt_cached,$(1),$(2)),$(call mevt_run,$(1),$(2),$(3)))
endef
MEVT_KINDS := probe finetune cluster retrieval
$(foreach b,$(MEVT_BENCHMARKS),$(foreach k,$(MEVT_KINDS),$(foreach s,$(SEEDS),$(eval $(call mevt_judge,$(b),$(s),$(k))))))
# $(1) benchmark, $(2) kind; the YAMLs come first, as above
mevt_stages = $(call mevt_files,$(1),$(2)) $(foreach s,$(SEEDS),$(call mevt_stage_dir,$(1),$(s),$(2))/done.json)
mevt_report = $(FS) report runs/mevt-$(1)$(call dash,$(MEVT_JUDGED))

.PHONY: mevt-pretrain mevt-pictures mevt-package mevt-table $(foreach k,$(MEVT_KINDS),$(MEVT_BENCHMARKS:%=mevt-$(k)-%))
mevt-pretrain: $(MEVT_FILES) $(foreach s,$(SEEDS),$(call mevt_pretrained,$(s))/done.json) ## pretraining without labels; DATA=imagenet|coco|voc|images ROOT=<folder>, METHOD="dino xs"
	@echo "checkpoints: $(foreach s,$(SEEDS),$(call mevt_pretrained,$(s))/checkpoints/last.ckpt)"

mevt-probe-voc: $(call mevt_stages,voc,probe) ## linear probe of it; PROTOCOL=L|L-cached|M, HEAD=fcn, BACKBONE=vit-s16, WEIGHTS=<file>
	$(call mevt_report,voc)

mevt-probe-coco: $(call mevt_stages,coco,probe) ## the same on COCO-Stuff; LABELS=27|171|things12|stuff15
	$(call mevt_report,coco)

mevt-probe-ade20k: $(call mevt_stages,ade20k,probe) ## the same on ADE20K, protocol M unless told otherwise
	$(call mevt_report,ade20k)

mevt-probe-cityscapes: $(call mevt_stages,cityscapes,probe) ## the same on Cityscapes, protocol M unless told otherwise
	$(call mevt_report,cityscapes)

mevt-finetune-voc: $(call mevt_stages,voc,finetune) ## fine-tuning; HEAD=own|upernet|semantic-fpn|fcn
	$(call mevt_report,voc)

mevt-finetune-coco: $(call mevt_stages,coco,finetune) ## the same on COCO-Stuff; HEAD=own|upernet|semantic-fpn
	$(call mevt_report,coco)

mevt-finetune-ade20k: $(call mevt_stages,ade20k,finetune) ## the same on ADE20K; HEAD=own|upernet|semantic-fpn
	$(call mevt_report,ade20k)

mevt-finetune-cityscapes: $(call mevt_stages,cityscapes,finetune) ## the same on Cityscapes; HEAD=own|upernet|semantic-fpn|fcn
	$(call mevt_report,cityscapes)

mevt-cluster-voc: $(call mevt_stages,voc,cluster) ## clusters without labels, protocol K1; CLUSTERS=500
	$(call mevt_report,voc)

mevt-cluster-coco: $(call mevt_stages,coco,cluster) ## the same on COCO-Stuff; PROTOCOL=K1|K2
	$(call mevt_report,coco)

mevt-cluster-ade20k: $(call mevt_stages,ade20k,cluster) ## the same on ADE20K
	$(call mevt_report,ade20k)

mevt-cluster-cityscapes: $(call mevt_stages,cityscapes,cluster) ## the same on Cityscapes; PROTOCOL=K1|K2
	$(call mevt_report,cityscapes)

mevt-retrieval-voc: $(call mevt_stages,voc,retrieval) ## dense nearest neighbours
	$(call mevt_report,voc)

mevt-retrieval-coco: $(call mevt_stages,coco,retrieval) ## the same on COCO-Stuff
	$(call mevt_report,coco)

mevt-retrieval-ade20k: $(call mevt_stages,ade20k,retrieval) ## the same on ADE20K
	$(call mevt_report,ade20k)

mevt-retrieval-cityscapes: $(call mevt_stages,cityscapes,retrieval) ## the same on Cityscapes
	$(call mevt_report,cityscapes)

# what others can use, and see; WEIGHTS: another checkpoint of mevt-pretrain than DATA, METHOD, RUN and SEED name
MEVT_OUT := $(or $(OUT),runs/mevt-pretrain$(call dash,$(MEVT_NAME))/seed$(SEED))
mevt_pictured.coco := coco-stuff27
MEVT_FINISHED = $(foreach f,$(wildcard $(MEVT_BENCHMARKS:%=runs/mevt-%*/seed*/*/done.json)),$(if $(findstring .old-,$(f)),,$(f)))
mevt-pictures: $(READY) $(if $(WEIGHTS),,$(call mevt_pretrained,$(SEED))/done.json) ## components, clusters, matched points and neighbours of BENCHMARK=voc, PICTURES=6 val images
	$(FS) pictures $(call mevt_checkpoint,$(SEED)) --data $(or $(mevt_pictured.$(BENCHMARK)),$(BENCHMARK)) --root $(or $(ROOT),$(mevt_root.$(BENCHMARK))) \
	  --images $(PICTURES) --out $(MEVT_OUT)/pictures-$(BENCHMARK)

# finished runs that judged these weights
mevt_scores = $(strip $(foreach f,$(MEVT_FINISHED),$(if $(findstring "weights": "$(call mevt_checkpoint,$(SEED))",$(file <$(dir $(f))provenance.json)),$(patsubst %/,%,$(dir $(f))))))
mevt-package: $(READY) $(if $(WEIGHTS),,$(call mevt_pretrained,$(SEED))/done.json) ## the teacher's backbone as safetensors with a model card of the scores that there are; OUT=<folder>
	$(FS) package $(call mevt_checkpoint,$(SEED)) --out $(MEVT_OUT)/package --overwrite $(if $(mevt_scores),--matching --scores $(mevt_scores))

mevt-table: $(READY) ## every probe, fine-tuning, clustering and retrieval that has finished, in one table
	$(if $(MEVT_FINISHED),$(FS) report $(sort $(foreach f,$(MEVT_FINISHED),runs/$(word 2,$(subst /, ,$(f))))),$(error mevt-table: nothing has finished yet; run make mevt-probe-voc or another of mevt-*))

# ---------------------------------------------------------------- MEVT in miniature

# $(1) row: pretraining and linear probe of one seed share a process, both clusterings another. `init` has no pretraining: its net
# is the one that the others start from.
MINI_MEVT := experiments/miniature/mevt
MEVT_ROWS ?= init global dense full no-context no-decoder
# of both studies: three seeds unless told otherwise
MEVT_SEEDS := $(if $(filter-out file,$(origin SEED) $(origin SEEDS)),$(SEEDS),0 1 2)
# what a row changes in the net that is judged
mini_net.no-context := --model.init_args.backbone.options.context false
mini_net.no-decoder := --model.init_args.backbone.options.decoder false

runs/worlds/ade20k-seed%/world.json: | $(READY)
	$(FS) miniature ade20k --root $(@D) --seed $* --images 600 --images-val 150

# $(1) row, $(2) seed
mini_mevt_folder = runs/mini-mevt-$(1)/seed$(2)
mini_mevt_given = $(CPU) --run.name $(1) --seed_everything $(2) --run.wandb false --data.init_args.root runs/worlds/ade20k-seed$(2) $(ARGS)
mini_mevt_fit = $(if $(filter init,$(1)),,fit $(BASE) --config $(MINI_MEVT)/pretrain.yaml \
  $(if $(filter full,$(1)),,--config $(MINI_MEVT)/$(1).yaml) $(call mini_mevt_given,$(1),$(2)) $(ARGS_pretrain) +)
mini_mevt_net = $(if $(filter init,$(1)),,--model.init_args.backbone.weights $(call mini_mevt_folder,$(1),$(2))/pretrain/checkpoints/last.ckpt) \
  $(mini_net.$(1))
# $(1) row, $(2) seed, $(3) names of YAMLs
mini_mevt_judge = $(BASE) $(foreach y,$(3) $(filter init,$(1)),--config $(MINI_MEVT)/$(y).yaml) $(call mini_mevt_given,$(1),$(2)) $(call mini_mevt_net,$(1),$(2))

# $(1) row, $(2) seed
define mini_mevt
$(call mini_mevt_folder,$(1),$(2))/probe/done.json: $(patsubst %,$(MINI_MEVT)/%.yaml,$(if $(filter init,$(1)),,pretrain) $(filter-out full,$(1)) probe) \
  experiments/_base/trainer.yaml experiments/_base/cpu.yaml runs/worlds/ade20k-seed$(2)/world.json runs/mini-mevt-$(1)/.settings
	$(FS) $(call mini_mevt_fit,$(1),$(2)) fit $(call mini_mevt_judge,$(1),$(2),probe)

$(call mini_mevt_folder,$(1),$(2))/cluster-18-validate/done.json: $(patsubst %,$(MINI_MEVT)/%.yaml,cluster cluster-18) $(call mini_mevt_folder,$(1),$(2))/probe/done.json
	$(FS) validate $(call mini_mevt_judge,$(1),$(2),cluster) + validate $(call mini_mevt_judge,$(1),$(2),cluster cluster-18)
endef
$(foreach s,$(MEVT_SEEDS),$(foreach r,$(MEVT_ROWS),$(eval $(call mini_mevt,$(r),$(s)))))

.PHONY: mini-mevt mini-mevt-scores
# the longest first, so that both cores end together
mini-mevt-scores: $(foreach s,$(MEVT_SEEDS),$(foreach r,$(filter $(MEVT_ROWS),full dense no-context no-decoder global init),$(call mini_mevt_folder,$(r),$(s))/cluster-18-validate/done.json))

mini-mevt: $(READY) ## MEVT and its ablations on the miniature ADE20K world, SEEDS="0 1 2": linear probe and clusters of random numbers, single terms, all
	@$(MAKE) --no-print-directory -j2 mini-mevt-scores
	$(FS) report $(MEVT_ROWS:%=runs/mini-mevt-%)

# ---------------------------------------------------------------- MEVT on a few real photographs

# one pretraining of mevt_xs; probes of it and of random numbers, both over seeds of the probe
REAL ?= ../shared/real
REAL_VOC := $(REAL)/VOCdevkit/VOC2012
# $(1) seed, $(2) name of the run
real_given = $(CPU) --run.name "$(2)" --seed_everything $(1) --run.wandb false --data.init_args.root $(REAL_VOC) $(ARGS)

runs/mini-mevt-real/seed0/pretrain/done.json: $(MINI_MEVT)/real-pretrain.yaml experiments/_base/trainer.yaml experiments/_base/cpu.yaml \
  runs/mini-mevt-real/.settings | $(READY)
	$(FS) fit $(BASE) --config $(MINI_MEVT)/real-pretrain.yaml $(call real_given,0,) $(ARGS_pretrain)

# $(1) seed
define mini_mevt_real
runs/mini-mevt-real/seed$(1)/probe/done.json: $(MINI_MEVT)/real-probe.yaml runs/mini-mevt-real/seed0/pretrain/done.json
	$(FS) fit $(BASE) --config $(MINI_MEVT)/real-probe.yaml $(call real_given,$(1),) \
	  --model.init_args.backbone.weights runs/mini-mevt-real/seed0/pretrain/checkpoints/last.ckpt

runs/mini-mevt-real-random/seed$(1)/probe/done.json: $(MINI_MEVT)/real-probe.yaml $(MINI_MEVT)/real-random.yaml experiments/_base/trainer.yaml \
  experiments/_base/cpu.yaml runs/mini-mevt-real-random/.settings | $(READY)
	$(FS) fit $(BASE) --config $(MINI_MEVT)/real-probe.yaml --config $(MINI_MEVT)/real-random.yaml $(call real_given,$(1),random)
endef
$(foreach s,$(MEVT_SEEDS),$(eval $(call mini_mevt_real,$(s))))

.PHONY: mini-mevt-real mini-mevt-real-scores
mini-mevt-real-scores: $(foreach s,$(MEVT_SEEDS),runs/mini-mevt-real/seed$(s)/probe/done.json runs/mini-mevt-real-random/seed$(s)/probe/done.json)

mini-mevt-real: $(READY) ## mevt_xs pretrained on the real VOC sample for 20 minutes, probed against random numbers; REAL=folder of the samples
	@# first, as both probes may then run side by side
	@$(MAKE) --no-print-directory runs/mini-mevt-real/seed0/pretrain/done.json
	@$(MAKE) --no-print-directory -j2 mini-mevt-real-scores
	$(FS) report runs/mini-mevt-real runs/mini-mevt-real-random
