"""Reads raw runs and makes none: figures, tables, notebooks, claims, pages."""
