"""A server suffers one fault after the other while requests go on."""
