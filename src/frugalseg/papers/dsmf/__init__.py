"""DSMF-Net: dual semantic metric learning fusion network for few-shot aerial segmentation (JSTARS 2025)."""
