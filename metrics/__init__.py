"""Full-reference metrics and the pairing of results with ground truth."""
