"""The diagnosis: what is wrong with a run, since when, how that shows, why it happens and what to change."""
