"""Experiments: a paper's settings and tables, many runs at once, numbers recorded beside the published ones."""
