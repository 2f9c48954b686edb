"""Streaming, mergeable statistics of what flows through a layer, in memory that does not grow with the data."""
