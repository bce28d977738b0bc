"""Fine-tuned encoders with prediction heads."""
