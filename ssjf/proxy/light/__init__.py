"""Hashed n-grams and boosted trees: no GPU, no download."""
