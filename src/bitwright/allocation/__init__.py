"""What storing a model in one way or another would cost on this device."""
