"""`make demo`: the main job on a sample, with nothing but this repository and a package index."""
