"""The four papers, one folder each."""
