"""What people meet: the command line, errors, progress, files that are whole or absent."""
