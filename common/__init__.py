"""What every room uses: errors that a user can fix, files, paths, the command line, provenance. Knows no other package."""
