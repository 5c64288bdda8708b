"""Where numbers of a robot stand: the unified vector of 128 slots, rotations, and mappings of common arms."""
