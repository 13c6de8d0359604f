"""The tables of the paper and of the evidence page: which run makes each row, the runs, and what they found."""
