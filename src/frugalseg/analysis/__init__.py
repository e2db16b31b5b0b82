"""Reading runs: scores of map folders, tables, means over seeds."""
