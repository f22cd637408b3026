"""Human in the loop: the queue of deferred outcomes, reviewers' decisions, and their labels."""
