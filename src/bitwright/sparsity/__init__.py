"""Weights that are zero, weights that share values, and what both are worth to an entropy coder. See docs/sparsity.md."""
