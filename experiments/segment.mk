# Included by the Makefile: what `frugalseg segment` needs for a GeoTIFF of 20,000 x 20,000 pixels.

SIDE ?= 20000

.PHONY: large-raster
large-raster: $(READY) ## segment a synthetic GeoTIFF by windows (SIDE=20000): seconds and peak memory into results/large_raster.json
	$(BIN)/python -m tests.studies.large_raster --side $(SIDE) --out results/large_raster.json
