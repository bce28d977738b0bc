"""One module per kind of run: from a specification to its rows."""
