"""Runs that lie on the disk: listed, collected into one table, drawn anew, compared."""
