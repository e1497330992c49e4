"""What every room uses: errors that a user can fix, files, paths, the command line. Knows no other package."""

__version__ = "0.2.0"
