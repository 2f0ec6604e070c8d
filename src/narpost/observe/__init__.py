"""What is told of the work: the picture, and the log."""
