"""Fine-tuned encoders with heads."""
