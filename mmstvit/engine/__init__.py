"""What takes part in training beside the model."""
