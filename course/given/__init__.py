"""What exercises import because it is not their lesson: scripts, weights, graphs, the benchmark's parts."""
