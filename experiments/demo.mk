# Included by the Makefile: all four papers in miniature, end to end, two one-thread processes side by side.

# Every stage is one of mini-sfc, mini-cti, mini-cti-chain, mini-dsmf and mini-mevt: what the demo has made they need not make.
DEMO_SEED := $(firstword $(SEEDS))
DEMO_FOLD := $(firstword $(MINI_FOLDS))
DEMO_SFC := longtail-sfc longtail-baseline
# $(1) experiment, $(2...) stages of it
demo_of = $(foreach t,$(2),runs/mini-$(1)/seed$(DEMO_SEED)/$(t)/done.json)
demo_few = $(foreach t,$(2),$(call mini_few,$(1),$(DEMO_FOLD),$(DEMO_SEED))/$(t)/done.json)
DEMO_STAGES = $(PRETRAINED)/done.json $(call mini_backbone,$(DEMO_FOLD))/done.json \
  $(foreach r,$(DEMO_SFC),$(call demo_of,sfc-$(r),classify cam score)) \
  $(call demo_of,cti-warm,classify) $(foreach r,baseline full,$(call demo_of,cti-$(r),classify cam score)) \
  $(call demo_of,cti-full,$(foreach s,train val,$(addsuffix -$(s),cam score seeds edges labels score-labels)) irn segment predict-val score-segment-val) \
  $(foreach r,prototype full,$(call demo_few,$(r),train 1shot-test 5shot-test)) \
  $(call demo_of,mevt-init,probe) $(call demo_of,mevt-full,pretrain probe)
DEMO_RUNS := $(DEMO_SFC:%=runs/mini-sfc-%) $(patsubst %,runs/mini-%,cti-baseline cti-full dsmf-prototype dsmf-full mevt-init mevt-full)

DEMO_COUNTED := $(DEMO_STAGES)

.PHONY: demo demo-scores
# Two lanes of about the same length, each a chain of processes: left to itself, Make begins the longest chain of the demo (the
# shared pretraining, then CTI as far as masks) last, and one core idles at the end. Only the demo is ordered so.
DEMO_LANES := 1 2
demo_lane.1 = $(PRETRAINED)/done.json $(call demo_of,cti-full,score score-segment-val) $(foreach r,$(DEMO_SFC),$(call demo_of,sfc-$(r),score))
demo_lane.2 = $(call mini_backbone,$(DEMO_FOLD))/done.json $(call demo_few,full,5shot-test) $(call demo_of,mevt-full,probe) \
  $(call demo_of,mevt-init,probe) $(call demo_of,cti-baseline,score)
# $(1...) targets: each waits for the one before it, and is made no more often for that
demo_after = $(if $(word 2,$(1)),$(eval $(word 2,$(1)): | $(firstword $(1)))$(call demo_after,$(wordlist 2,$(words $(1)),$(1))))
$(if $(filter demo-scores,$(MAKECMDGOALS)),$(foreach l,$(DEMO_LANES),$(call demo_after,$(demo_lane.$(l)))))
demo-scores: $(foreach l,$(DEMO_LANES),$(demo_lane.$(l)))

demo: $(READY) ## all four papers in miniature, end to end (at most 12 minutes on 2 cores); Ctrl-C, and again goes on
ifneq ($(findstring n,$(filter-out -%,$(firstword $(MAKEFLAGS)))),)
	@$(MAKE) --no-print-directory demo-scores
else
	@$(FS) follow --title "frugalseg in miniature" --log runs/demo/log.txt --expected experiments/demo.json $(REMEMBER:%=--remember %) \
	  --stages $(DEMO_COUNTED) -- $(MAKE) --no-print-directory -j2 demo-scores
endif
	@# the tables of single experiments are in the report
	@mkdir -p runs/demo
	$(FS) report $(DEMO_RUNS) --html runs/report > runs/demo/tables.txt
	$(FS) demo --seed $(DEMO_SEED) --fold $(DEMO_FOLD) --out runs/report/demo.png
	@echo "report: runs/report/index.html, everything that was printed: runs/demo/log.txt"
