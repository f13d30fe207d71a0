"""The mesh, several processes, compilation and memory."""
