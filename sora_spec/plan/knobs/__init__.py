"""What can be turned about a plan, for the terminal interface."""
