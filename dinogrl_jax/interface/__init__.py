"""What users and their files meet: the command line, errors, progress, complete files."""
