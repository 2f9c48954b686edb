"""How a layer's inputs are rounded: what the engine does, and what else there is, simulated to see what it would cost."""
