"""Faults on purpose: every stage of every miniature chain is killed, starved and misled, and must end the same."""
