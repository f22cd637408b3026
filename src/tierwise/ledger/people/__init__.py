"""Records that people cause: reviews, sampled answers and their labels, deletions, seals."""
