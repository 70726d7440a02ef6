"""Reference numbers of the published implementation; see README.md beside this file."""
