"""What the tests of the exercises use: a submission, its servers, its worker, verdicts, load."""
