"""The light proxy, of hashed n-grams and boosted trees: no GPU, no download."""
