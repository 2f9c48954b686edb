"""Text that a model is calibrated on, and the walk through its blocks that watches what each layer is given."""
