"""The command line: the only room that prints, and that reads argv and the environment."""
