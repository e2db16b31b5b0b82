"""Modules that two papers or stages share."""
