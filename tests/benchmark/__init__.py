"""`python -m tests.benchmark`: how fast the package is, next to the plainest form of the same work. Not shipped."""
