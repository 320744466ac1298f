"""The contract between a method and the training loop, and what several methods share."""
