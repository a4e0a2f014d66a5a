"""What programs run on: threads, compilation, signals, and what a number is."""
