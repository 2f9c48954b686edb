"""Which scheme each tensor gets: what its error costs, what each way of storing it costs on this device, the best choice."""
