# Included by the Makefile: your own photos. Photos with tags become masks: classify -> class maps -> seeds (CRF) -> IRN -> labels
# (random walk) -> segment -> masks of all photos; no mask is needed on the way, so nothing is scored.
#
# make folder-check ROOT=my_photos                      what is there, what is wrong and what to do about it
# make folder-masks ROOT=my_photos [METHOD=sfc|cti]     masks of all photos: runs/folder-sfc[-RUN]/seed0/predict-all/masks
# make folder-scores ROOT=my_photos                     the same, scored on the photos that have a mask in ROOT/masks
# make folder-segment ROOT=my_photos NEW=more_photos    the net that was trained on ROOT makes masks of others; OUT says where (of several seeds, in seed0, seed1, ...)
#
# RUN keeps several folders apart; SEED, ARGS, ARGS_classify, ARGS_irn, ARGS_segment, OVERLAYS, PRECISION and LABELS_ON are those of
# the Makefile. Stages begin with VOC's YAMLs, over which those of experiments/folder lie.
FOLDER := experiments/folder
FOLDER_ASKED := $(filter folder-%,$(MAKECMDGOALS))
FOLDER_METHOD := $(or $(if $(FOLDER_ASKED),$(METHOD)),sfc)
$(if $(FOLDER_ASKED),$(if $(ROOT),,$(error ROOT= is not set: give your folder of photos with its tags.csv)))
$(if $(FOLDER_ASKED),$(if $(word 2,$(ROOT)),$(error ROOT=$(ROOT): Make knows no paths with spaces; rename the folder or link to it)))
NEW ?=
$(if $(filter folder-segment,$(MAKECMDGOALS)),$(if $(NEW),,$(error NEW= is not set: give the folder of photos that want masks)))
$(if $(filter sfc cti,$(FOLDER_METHOD)),,$(error METHOD=$(METHOD): write sfc or cti))
$(if $(word 2,$(FOLDER_METHOD)),$(error METHOD=$(METHOD): write sfc or cti, one of them))
folder-sfc.root := $(ROOT)
folder-cti.root := $(ROOT)
# whose settings they are, and which labels the segmenter learns
folder-sfc.voc := experiments/sfc/voc
folder-cti.voc := experiments/cti/voc
folder-sfc.pseudo := pseudo
folder-cti.pseudo := refined
# what says which image shows what: with it changed, all is made again
FOLDER_LABELS := $(if $(FOLDER_ASKED),$(wildcard $(addprefix $(ROOT)/,tags.csv classes.txt classes.csv palette.csv splits/*.txt)))
# names and sizes of photos and masks: with others there, masks and scores are made again, and the nets stay
FOLDER_RUN := folder-$(FOLDER_METHOD)
FOLDER_PHOTOS := $(if $(FOLDER_ASKED),runs/$(FOLDER_RUN)$(call dash,$(RUN))/.photos)

# of each net, from VOC's files on: $(1) experiment
folder_classify = experiments/_base/trainer.yaml $($(1).voc)/classify.yaml $(FOLDER)/classify-$(1:folder-%=%).yaml
folder_irn := experiments/_base/trainer.yaml experiments/sfc/voc/irn.yaml $(FOLDER)/irn.yaml
folder_segment := experiments/_base/trainer.yaml experiments/sfc/voc/segment.yaml $(FOLDER)/segment.yaml
# $(1...) files
folder_config = $(foreach y,$(1),--config $(y))
# $(1) experiment, $(2) seed, $(3) stage
folder_given = $(call given,$(1),$(2),$(3)) --run.experiment $(1)

# photos with tags: $(1) experiment, $(2) folder of its seed, $(3) seed
define folder_rules
$(2)/classify/done.json: $(call folder_classify,$(1)) $(FOLDER_LABELS) runs/$(1)$(call dash,$(RUN))/.settings | $(READY)
	$(RUN_ON) fit $(call folder_config,$(call folder_classify,$(1))) $(call folder_given,$(1),$(3),classify) $(ARGS_classify)

$(2)/cam-tagged/done.json: $($(1).voc)/cam.yaml $(2)/classify/done.json
	$(RUN_ON) predict $(call folder_config,$(call folder_classify,$(1)) $($(1).voc)/cam.yaml) $(call folder_given,$(1),$(3),cam-tagged) $(ARGS_classify) \
	  --data.init_args.predict_split tagged --ckpt_path $(2)/classify/checkpoints/last.ckpt

$(2)/seeds-tagged/done.json: $($(1).voc)/seeds.yaml $(FOLDER)/labels.yaml $(2)/cam-tagged/done.json
	$(RUN_ON) crf $(call folder_config,$($(1).voc)/seeds.yaml $(FOLDER)/labels.yaml) --maps $(2)/cam-tagged/maps $(call verb,$(1),$(3),seeds,tagged)

$(2)/irn/done.json: $(folder_irn) $(2)/seeds-tagged/done.json
	$(RUN_ON) fit $(call folder_config,$(folder_irn)) $(call folder_given,$(1),$(3),irn) $(ARGS_irn) --data.init_args.pseudo_labels $(2)/seeds-tagged/seed_labels

$(2)/edges-tagged/done.json: experiments/sfc/voc/edges.yaml $(2)/irn/done.json
	$(RUN_ON) predict $(call folder_config,$(folder_irn) experiments/sfc/voc/edges.yaml) $(call folder_given,$(1),$(3),edges-tagged) $(ARGS_irn) \
	  --data.init_args.predict_split tagged --ckpt_path $(2)/irn/checkpoints/last.ckpt

$(2)/labels-tagged/done.json: $($(1).voc)/labels.yaml $(FOLDER)/labels.yaml $(2)/edges-tagged/done.json $(2)/cam-tagged/done.json
	$(RUN_ON) walk $(call folder_config,$($(1).voc)/labels.yaml $(FOLDER)/labels.yaml) --maps $(2)/cam-tagged/maps \
	  --edges $(2)/edges-tagged/edges $(call verb,$(1),$(3),labels,tagged)

$(2)/segment/done.json: $(folder_segment) $(2)/labels-tagged/done.json
	$(RUN_ON) fit $(call folder_config,$(folder_segment)) $(call folder_given,$(1),$(3),segment) $(ARGS_segment) \
	  --data.init_args.pseudo_labels $(2)/labels-tagged/$($(1).pseudo)

$(2)/predict-all/done.json: experiments/sfc/voc/predict.yaml $(2)/segment/done.json $(FOLDER_PHOTOS)
	$(RUN_ON) predict $(call folder_config,$(folder_segment) experiments/sfc/voc/predict.yaml) $(call folder_given,$(1),$(3),predict-all) $(ARGS_segment) \
	  --data.init_args.predict_split all --ckpt_path $(2)/segment/checkpoints/last.ckpt

$(2)/score-masked/done.json: $(2)/predict-all/done.json $(FOLDER_PHOTOS)
	$(FS) evaluate --masks =$(2)/predict-all/masks --masks crf=$(2)/predict-all/masks-crf --config $(FOLDER)/labels.yaml \
	  --data.init_args.root $(ROOT) --split masked --train-split tagged --experiment $(1) --stage score-masked --out $(2)/score-masked --quiet --pictures 8
endef
$(foreach s,$(SEEDS),$(eval $(call folder_rules,$(FOLDER_RUN),$(call folder,$(FOLDER_RUN),$(s)),$(s))))
# $(1) stage, of all seeds
folder_stage = $(foreach s,$(SEEDS),$(call folder,$(FOLDER_RUN),$(s))/$(1)/done.json)

# rewritten only when it changed, also under `make -n`, as .settings is
ifneq ($(FOLDER_PHOTOS),)
$(FOLDER_PHOTOS): FORCE
	+@mkdir -p $(@D)
	+@{ find -L '$(ROOT)' -type f -exec wc -c {} + 2> /dev/null | grep -iE '\.(jpe?g|png|webp|bmp|tiff?)$$' || true; } | LC_ALL=C sort > $@.$$$$; \
	  if cmp -s $@.$$$$ $@; then rm $@.$$$$; else mv $@.$$$$ $@; fi
endif

.PHONY: folder-check folder-masks folder-scores folder-segment
folder-check: $(READY) ## ROOT=my_photos: photos, tags, classes and masks of your folder, what is wrong and how to mend it
	$(FS) data check folder --root $(ROOT)

folder-masks: $(call folder_stage,predict-all) ## ROOT=my_photos [METHOD=sfc|cti]: from photos with tags (tags.csv) to masks of all photos, the whole chain
	@echo "masks: $(foreach s,$(SEEDS),$(call folder,$(FOLDER_RUN),$(s))/predict-all/masks)"

folder-scores: $(call folder_stage,score-masked) ## ROOT=my_photos: the same, scored on those photos that have a mask in ROOT/masks
	$(FS) report runs/$(FOLDER_RUN)$(call dash,$(RUN))

folder-segment: $(call folder_stage,segment) ## ROOT=my_photos NEW=more_photos [OUT=folder]: masks of photos that nobody has tagged
	set -e; $(foreach s,$(SEEDS),$(FS) segment $(NEW) --checkpoint $(call folder,$(FOLDER_RUN),$(s))/segment/checkpoints/last.ckpt \
	  --out $(if $(OUT),$(OUT)$(if $(word 2,$(SEEDS)),/seed$(s)),$(call folder,$(FOLDER_RUN),$(s))/segment-new);)
