# Included by the Makefile: the papers' central claims in miniature, each row over five seeds that no setting was tuned on.

# What is compared with what is in experiments/claims/claims.yaml; here stand the runs. ONLY=sfc (or the beginning of a claim's id)
# makes the runs of that paper alone. Scores are stages of their own, so that a new measure needs no new training.
CLAIMS := experiments/claims
CLAIM_SEEDS ?= 11 12 13 14 15
CLAIM_PAPERS := sfc cti dsmf mevt
CLAIMED := $(foreach p,$(CLAIM_PAPERS),$(if $(ONLY),$(if $(filter $(p) $(p)-%,$(ONLY)),$(p)),$(p)))
# as in SFC's and CTI's miniatures: the pretrained stand-in
claim_over = $(BASE) --config experiments/miniature/$(1).yaml

# ---------------------------------------------------------------- SFC: rows of two worlds

CLAIM_SFC := $(addprefix longtail-,baseline baseline-20 bank no-weights no-prototype no-scale sfc) $(addprefix balanced-,baseline baseline-20 no-weights sfc)
# $(1) seed, $(2) world-row
claim_world = $(firstword $(subst -, ,$(1)))
claim_row = $(patsubst $(call claim_world,$(1))-%,%,$(1))
claim_sfc_dir = runs/claims-sfc-$(2)/seed$(1)
claim_sfc_yamls = $(call claim_over,sfc/classify) --config $(CLAIMS)/sfc/common.yaml --config $(CLAIMS)/sfc/$(call claim_row,$(1)).yaml
claim_sfc_given = $(CPU) --run.name $(2) --seed_everything $(1) --run.wandb false --data.init_args.root runs/worlds/voc-$(call claim_world,$(2))-seed$(1) \
  --model.init_args.weights $(PRETRAINED)/checkpoints/last.ckpt $(ARGS)

# $(1) seed, $(2) world-row
define claim_sfc
$(call claim_sfc_dir,$(1),$(2))/cam/done.json: experiments/_base/trainer.yaml experiments/_base/cpu.yaml experiments/miniature/sfc/classify.yaml \
  experiments/miniature/sfc/cam.yaml $(patsubst %,$(CLAIMS)/sfc/%.yaml,common cam $(call claim_row,$(2))) $(PRETRAINED)/done.json \
  runs/worlds/voc-$(call claim_world,$(2))-seed$(1)/world.json runs/claims-sfc-$(2)/.settings
	$(FS) fit $(call claim_sfc_yamls,$(2)) $(call claim_sfc_given,$(1),$(2)) \
	  + predict $(call claim_sfc_yamls,$(2)) --config experiments/miniature/sfc/cam.yaml --config $(CLAIMS)/sfc/cam.yaml $(call claim_sfc_given,$(1),$(2)) \
	    --ckpt_path $(call claim_sfc_dir,$(1),$(2))/classify/checkpoints/last.ckpt

$(call claim_sfc_dir,$(1),$(2))/score/done.json: $(call claim_sfc_dir,$(1),$(2))/cam/done.json
	$(FS) evaluate --maps $(call claim_sfc_dir,$(1),$(2))/cam/maps --root runs/worlds/voc-$(call claim_world,$(2))-seed$(1) --split train \
	  --rules m0,mw,mp,sum --parts --experiment claims-sfc --out $(call claim_sfc_dir,$(1),$(2))/score --pictures 4 --quiet
endef
$(foreach s,$(CLAIM_SEEDS),$(foreach r,$(CLAIM_SFC),$(eval $(call claim_sfc,$(s),$(r)))))
claim_stages.sfc := $(foreach s,$(CLAIM_SEEDS),$(foreach r,$(CLAIM_SFC),$(foreach t,classify cam score,$(call claim_sfc_dir,$(s),$(r))/$(t)/done.json)))
claim_goals.sfc := $(filter %/score/done.json,$(claim_stages.sfc))

# ---------------------------------------------------------------- CTI: a common first phase, and rows that fork from it

CLAIM_CTI := baseline bg intra cross full
claim_cti_dir = runs/claims-cti-$(2)/seed$(1)
claim_cti_yamls = $(call claim_over,cti/classify) --config $(CLAIMS)/cti/common.yaml --config $(CLAIMS)/cti/$(1).yaml
claim_cti_given = $(CPU) --seed_everything $(1) --run.wandb false --data.init_args.root runs/worlds/voc-balanced-seed$(1) \
  --model.init_args.stem_weights $(PRETRAINED)/checkpoints/last.ckpt $(ARGS)
claim_cti_fork = $(call claim_cti_given,$(1)) --model.init_args.weights $(call claim_cti_dir,$(1),warm)/classify/checkpoints/last.ckpt
claim_cti_files = experiments/_base/trainer.yaml experiments/_base/cpu.yaml experiments/miniature/cti/classify.yaml $(patsubst %,$(CLAIMS)/cti/%.yaml,common $(1))

# $(1) seed
define claim_cti_warm
$(call claim_cti_dir,$(1),warm)/classify/done.json: $(call claim_cti_files,warm) $(PRETRAINED)/done.json runs/worlds/voc-balanced-seed$(1)/world.json \
  runs/claims-cti-warm/.settings
	$(FS) fit $(call claim_cti_yamls,warm) $(call claim_cti_given,$(1))
endef

# $(1) seed, $(2) row
define claim_cti
$(call claim_cti_dir,$(1),$(2))/cam/done.json: $(call claim_cti_files,$(2)) experiments/miniature/cti/cam.yaml $(CLAIMS)/cti/cam.yaml \
  $(call claim_cti_dir,$(1),warm)/classify/done.json runs/claims-cti-$(2)/.settings
	$(FS) fit $(call claim_cti_yamls,$(2)) $(call claim_cti_fork,$(1)) \
	  + predict $(call claim_cti_yamls,$(2)) --config experiments/miniature/cti/cam.yaml --config $(CLAIMS)/cti/cam.yaml $(call claim_cti_fork,$(1)) \
	    --ckpt_path $(call claim_cti_dir,$(1),$(2))/classify/checkpoints/last.ckpt

$(call claim_cti_dir,$(1),$(2))/score/done.json: $(call claim_cti_dir,$(1),$(2))/cam/done.json
	$(FS) evaluate --maps $(call claim_cti_dir,$(1),$(2))/cam/maps --sweep cam,r,f --views --root runs/worlds/voc-balanced-seed$(1) --split train \
	  --limit 240 --experiment claims-cti --out $(call claim_cti_dir,$(1),$(2))/score --pictures 4 --quiet
endef
$(foreach s,$(CLAIM_SEEDS),$(eval $(call claim_cti_warm,$(s)))$(foreach r,$(CLAIM_CTI),$(eval $(call claim_cti,$(s),$(r)))))
claim_stages.cti := $(foreach s,$(CLAIM_SEEDS),$(call claim_cti_dir,$(s),warm)/classify/done.json \
  $(foreach r,$(CLAIM_CTI),$(foreach t,classify cam score,$(call claim_cti_dir,$(s),$(r))/$(t)/done.json)))
claim_goals.cti := $(filter %/score/done.json,$(claim_stages.cti))

# ---------------------------------------------------------------- DSMF-Net: each seed has its own world, backbone and fold

# one process per seed: backbone, episodes across scales, all rows and their tests
CLAIM_DSMF := full identity grid no-merge
$(foreach s,$(CLAIM_SEEDS),$(eval claim_fold_$(s) := $(shell echo $$(($(s) % 3)))))
claim_fold = $(claim_fold_$(1))
claim_tiles = runs/worlds/isaid5i-claims-seed$(1)
claim_dsmf_dir = runs/claims-dsmf-$(2)/fold$(call claim_fold,$(1))/seed$(1)
claim_dsmf_overlay.identity := --config experiments/dsmf/method/no-graph.yaml
claim_dsmf_overlay.grid := --config $(CLAIMS)/dsmf/grid.yaml
claim_dsmf_overlay.no-merge := --config experiments/dsmf/method/no-merge.yaml
claim_dsmf_yamls = $(call claim_over,dsmf/train) --config $(CLAIMS)/dsmf/train.yaml $(claim_dsmf_overlay.$(1))
# $(1) seed
claim_dsmf_data = --data.init_args.root $(call claim_tiles,$(1)) --data.init_args.fold $(call claim_fold,$(1))
claim_dsmf_given = $(CPU) --run.fold $(call claim_fold,$(1)) --seed_everything $(1) --run.wandb false $(call claim_dsmf_data,$(1))
# $(1) seed, $(2) row
claim_dsmf_row = $(call claim_dsmf_yamls,$(2)) $(call claim_dsmf_given,$(1)) --run.name $(2) \
  --model.init_args.weights $(call claim_dsmf_dir,$(1),backbone)/pretrain/checkpoints/last.ckpt $(ARGS)
# $(1) seed, $(2) row, $(3) stage, $(4) setting of the recipe, $(5) its value
claim_dsmf_test = test $(call claim_dsmf_row,$(1),$(2)) --run.stage $(3) --data.init_args.recipe.init_args.$(4) $(5) \
  --ckpt_path $(call claim_dsmf_dir,$(1),$(2))/train/checkpoints/last.ckpt
CLAIM_TESTS := 1shot 5shot small-large large-small

runs/worlds/isaid5i-claims-seed%/world.json: | $(READY)
	$(FS) miniature isaid --root runs/worlds/isaid-claims-seed$* --seed $* --scenes 400 --scenes-val 160 --size 192 \
	  + data prepare isaid5i --raw runs/worlds/isaid-claims-seed$* --root $(@D) --tile 96 --step 77 --lists
	cp runs/worlds/isaid-claims-seed$*/world.json $@

# $(1) seed
define claim_dsmf
$(call claim_dsmf_dir,$(1),$(lastword $(CLAIM_DSMF)))/large-small-test/done.json: experiments/_base/trainer.yaml experiments/_base/cpu.yaml \
  $(wildcard experiments/miniature/dsmf/*.yaml $(CLAIMS)/dsmf/*.yaml) $(patsubst %,experiments/dsmf/method/%.yaml,no-graph no-merge) \
  $(call claim_tiles,$(1))/world.json runs/claims-dsmf-$(lastword $(CLAIM_DSMF))/.settings
	$(FS) fit $(call claim_over,dsmf/pretrain) --config $(CLAIMS)/dsmf/pretrain.yaml $(call claim_dsmf_given,$(1)) \
	  + scale --config experiments/miniature/dsmf/train.yaml --config $(CLAIMS)/dsmf/train.yaml $(call claim_dsmf_data,$(1)) \
	    --out $(call claim_tiles,$(1))/scale --count 300 --seed $(1) \
	  $(foreach r,$(CLAIM_DSMF),+ fit $(call claim_dsmf_row,$(1),$(r)) \
	    $(foreach k,1 5,+ $(call claim_dsmf_test,$(1),$(r),$(k)shot,shots,$(k))) \
	    $(foreach d,small-large large-small,+ $(call claim_dsmf_test,$(1),$(r),$(d),episodes_file,$(call claim_tiles,$(1))/scale/$(d).csv)))
endef
$(foreach s,$(CLAIM_SEEDS),$(eval $(call claim_dsmf,$(s))))
claim_stages.dsmf := $(foreach s,$(CLAIM_SEEDS),$(call claim_dsmf_dir,$(s),backbone)/pretrain/done.json \
  $(foreach r,$(CLAIM_DSMF),$(foreach t,train $(CLAIM_TESTS:%=%-test),$(call claim_dsmf_dir,$(s),$(r))/$(t)/done.json)))
claim_goals.dsmf := $(foreach s,$(CLAIM_SEEDS),$(call claim_dsmf_dir,$(s),$(lastword $(CLAIM_DSMF)))/large-small-test/done.json)

# ---------------------------------------------------------------- MEVT: rows of one world with thin and small forms per seed

CLAIM_MEVT := full dense no-context coarse global
claim_mevt_dir = runs/claims-mevt-$(2)/seed$(1)
claim_mevt_overlay.dense := --config experiments/miniature/mevt/dense.yaml
claim_mevt_overlay.global := --config experiments/miniature/mevt/global.yaml
claim_mevt_overlay.no-context := --config experiments/miniature/mevt/no-context.yaml
claim_mevt_overlay.coarse := --config $(CLAIMS)/mevt/coarse.yaml
claim_mevt_net.no-context := --model.init_args.backbone.options.context false
claim_mevt_net.coarse := --model.init_args.backbone.options.output_stride 8
# $(1) seed, $(2) row
claim_mevt_given = $(CPU) --run.name $(2) --seed_everything $(1) --run.wandb false --data.init_args.root runs/worlds/ade20k-forms-seed$(1) $(ARGS)
claim_mevt_weights = --model.init_args.backbone.weights $(call claim_mevt_dir,$(1),$(2))/pretrain/checkpoints/last.ckpt
claim_mevt_probe = fit $(call claim_over,mevt/probe) --config $(CLAIMS)/mevt/probe.yaml $(3) $(call claim_mevt_given,$(1),$(2)) $(call claim_mevt_weights,$(1),$(2))

runs/worlds/ade20k-forms-seed%/world.json: | $(READY)
	$(FS) miniature ade20k --root $(@D) --seed $* --images 600 --images-val 150 --forms

# $(1) seed, $(2) row; rows whose third map is judged as well
CLAIM_F3 := full global
define claim_mevt
$(call claim_mevt_dir,$(1),$(2))/probe/done.json: experiments/_base/trainer.yaml experiments/_base/cpu.yaml \
  $(patsubst %,experiments/miniature/mevt/%.yaml,pretrain probe $(filter dense global no-context,$(2))) \
  $(patsubst %,$(CLAIMS)/mevt/%.yaml,pretrain probe probe-f3 $(filter coarse,$(2))) runs/worlds/ade20k-forms-seed$(1)/world.json runs/claims-mevt-$(2)/.settings
	$(FS) fit $(call claim_over,mevt/pretrain) --config $(CLAIMS)/mevt/pretrain.yaml $(claim_mevt_overlay.$(2)) $(call claim_mevt_given,$(1),$(2)) \
	  $(if $(filter $(CLAIM_F3),$(2)),+ $(call claim_mevt_probe,$(1),$(2),--config $(CLAIMS)/mevt/probe-f3.yaml)) \
	  + $(call claim_mevt_probe,$(1),$(2)) $(claim_mevt_net.$(2))

$(call claim_mevt_dir,$(1),$(2))/shapes/done.json: $(call claim_mevt_dir,$(1),$(2))/probe/done.json
	$(FS) shapes --config experiments/miniature/mevt/probe.yaml --data.init_args.root runs/worlds/ade20k-forms-seed$(1) \
	  --experiment claims-mevt-$(2) --of $(call claim_mevt_dir,$(1),$(2))/probe --stage shapes --out $(call claim_mevt_dir,$(1),$(2))/shapes
endef
$(foreach s,$(CLAIM_SEEDS),$(foreach r,$(CLAIM_MEVT),$(eval $(call claim_mevt,$(s),$(r)))))
claim_stages.mevt := $(foreach s,$(CLAIM_SEEDS),$(foreach r,$(CLAIM_MEVT),$(foreach t,pretrain probe shapes $(if $(filter $(CLAIM_F3),$(r)),probe-f3), \
  $(call claim_mevt_dir,$(s),$(r))/$(t)/done.json)))
claim_goals.mevt := $(filter %/shapes/done.json,$(claim_stages.mevt))

# ---------------------------------------------------------------- all of them

$(if $(filter claims claims-scores,$(MAKECMDGOALS)),$(if $(strip $(CLAIMED)),,$(error ONLY=$(ONLY): no claim begins so; write one of $(CLAIM_PAPERS), or the name of a claim)))
CLAIM_COUNTED := $(foreach p,$(CLAIMED),$(claim_stages.$(p)))
.PHONY: claims claims-scores
claims-scores: $(foreach p,$(CLAIMED),$(claim_goals.$(p)))

claims: $(READY) ## the papers' claims in miniature: baselines, five seeds, intervals, verdicts (two hours on 2 cores); ONLY=sfc|cti|dsmf|mevt
ifneq ($(findstring n,$(filter-out -%,$(firstword $(MAKEFLAGS)))),)
	@$(MAKE) --no-print-directory claims-scores
else
	@$(FS) follow --title "claims $(ONLY)" --log runs/claims/log.txt --expected $(CLAIMS)/seconds.json $(REMEMBER:%=--remember %) \
	  --stages $(CLAIM_COUNTED) -- $(MAKE) --no-print-directory -j2 claims-scores
endif
	$(FS) claims $(ONLY:%=--only %) --out runs/claims
