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

CLAIM_SFC := $(addprefix longtail-,baseline baseline-20 bank no-weights no-prototype no-scale sfc) $(addprefix balanced-,baseline baseline-20 sfc)
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
