"""One command each; prints a table."""
