# ---------------------------------------------------------------- the authors' released checkpoints

# Here CKPT=FILE is the file that the authors released and ROOT=DIR is VOC2012: convert it, write the class maps of the train images
# as the authors' own inference does (cam.yaml; cti.md and sfc.md, section 6), sweep the background's threshold, say what comes out.
# LIMIT=20 looks at the first 20 images alone, to try it out. Reports of the conversion: runs/cti-official/converted.ckpt.json.
LIMIT ?=
OFFICIAL := cti-official sfc-official
# $(1) target: what it cannot do without. CKPT is `best` where nobody has set it
official_needs = $(if $(filter $(1),$(MAKECMDGOALS)),\
  $(if $(filter best last,$(CKPT)),$(error make $(1) needs the file that the authors released: CKPT=FILE))\
  $(if $(wildcard $(CKPT)),,$(error CKPT=$(CKPT): there is no such file; give the one that the authors released))\
  $(if $(ROOT),,$(error make $(1) needs the images and masks of PASCAL VOC 2012: ROOT=DIR))\
  $(if $(wildcard $(ROOT)),,$(error ROOT=$(ROOT): there is no such folder; give the one that holds JPEGImages)))
$(foreach t,$(OFFICIAL),$(call official_needs,$(t)))

OFFICIAL_NAME := $(RUN)$(if $(RUN),$(LIMIT:%=-%))$(if $(RUN),,$(LIMIT:%=first%))
# $(1) cti or sfc
official = runs/$(1)-official$(call dash,$(OFFICIAL_NAME))
official_data = --data.init_args.root $(ROOT) $(LIMIT:%=--data.init_args.limit %)
# $(1) cti or sfc, $(2) maps whose thresholds are swept
define official_rules
$(call official,$(1))/converted.ckpt: $(CKPT) $(call official,$(1))/.settings | $(READY)
	$(FS) convert $(CKPT) --from $(1) --classes 21 --overwrite --out $(call official,$(1))/converted.ckpt

$(call official,$(1))/seed0/cam-train/done.json: $(call files,$(1)-voc,classify cam) $(call official,$(1))/converted.ckpt
	$(RUN_ON) predict $(call yamls,$(1)-voc,classify cam) --run.experiment $(1)-official --run.name "$(OFFICIAL_NAME)" --run.stage cam-train \
	  --seed_everything 0 $(call official_data) --data.init_args.predict_split train $(ARGS) --ckpt_path $(call official,$(1))/converted.ckpt

$(call official,$(1))/seed0/score-train/done.json: $(call official,$(1))/seed0/cam-train/done.json
	$(FS) evaluate --maps $(call official,$(1))/seed0/cam-train/maps --sweep $(2) --config $($(1)-voc.yaml)/classify.yaml $(call official_data) \
	  --split train --train-split trainaug --experiment $(1)-official --stage score-train --out $(call official,$(1))/seed0/score-train
endef
COMMA := ,
$(eval $(call official_rules,cti,cam))
$(eval $(call official_rules,sfc,m0$(COMMA)mw$(COMMA)mp))
# $(1) cti or sfc, $(2) keys as a pattern: ours, a line each, mIoU in %
official_scores = awk '/"train\/($(2))":/ { gsub(/[",:]/, ""); printf "ours       %s %.2f\n", $$1, 100 * $$2 }' $(call official,$(1))/seed0/score-train/metrics.json

.PHONY: $(OFFICIAL)
cti-official: $(call official,cti)/seed0/score-train/done.json ## the seed score of CTI's released checkpoint: CKPT=FILE ROOT=VOC2012; LIMIT=20 images to try
	@$(call official_scores,cti,miou_cam_best)
	@echo "published  train/miou_cam_best 69.5 (of the released checkpoint, 1,464 train images, best threshold)"

sfc-official: $(call official,sfc)/seed0/score-train/done.json ## the same for SFC's released checkpoint
	@$(call official_scores,sfc,miou_(m0|mw|mp|sum|m0_best|mw_best|mp_best))
	@echo "published  no figure of the paper was read here: see src/frugalseg/analysis/published.yaml"
