"""The layouts in which checkpoints with experts are stored: MING's own, and its siblings'."""
