"""One file per layout of paired images: each knows whether a path is of its kind, and lists the pairs."""
