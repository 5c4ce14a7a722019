"""What the records say: crossover, cost, tables, plots and one page. Reads record files only, without torch."""
