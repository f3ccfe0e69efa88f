"""Records to batches to checkpoints: the official data path, and training on top of it."""
