"""Parts of the embedded training backend: policy, warm start, rollout engine, log-probabilities, loss (needs torch)."""
