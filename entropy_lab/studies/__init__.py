"""Studies: many methods, settings and seeds, planned in one file and run to the end however often they are stopped."""
