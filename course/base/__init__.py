"""What everything else stands on: the list of exercises, processes, files, the container engine."""
