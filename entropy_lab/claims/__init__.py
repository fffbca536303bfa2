"""The claims audit: what arXiv 2604.04894 says, as data, and rules that hold a study's numbers against it."""
