"""Our estimators and our record inside other frameworks' trainers; each module needs the extra of its name."""
