"""The exercises: fill in what says TODO, then run `make check EX=...`."""
