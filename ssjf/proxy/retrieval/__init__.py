"""Lengths of past prompts that are near."""
