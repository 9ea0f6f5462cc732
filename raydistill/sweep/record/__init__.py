"""What is recorded of a sweep, and told to whoever watches it."""
