"""Where student code runs, what it sees of the machine and how much of it it may use."""
