"""One module per kind of run, each turning a specification into rows."""
