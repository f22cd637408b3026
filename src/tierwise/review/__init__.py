"""Human in the loop: the queue of outcomes that wait, a reviewer's decisions, and labels made of them."""
