"""Meta-training: what learns, one iteration, the loop around it, and what a run folder keeps of it."""
