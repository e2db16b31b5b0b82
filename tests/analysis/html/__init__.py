"""Tests of the static report."""
