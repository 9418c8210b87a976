"""What draws, quotes and compares results, and the results that are published: `python bench/report --help`."""
