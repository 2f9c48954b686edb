"""Which scheme each tensor gets: what an error costs (curvature), what the choices cost (candidates), the best of them (solver)."""
