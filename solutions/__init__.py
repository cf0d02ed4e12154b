"""The exercises, solved. Each file reads from top to bottom and runs by itself."""
