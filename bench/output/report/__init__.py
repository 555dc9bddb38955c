"""report.html: what a run or a series of runs found, on one page that needs nothing else."""
