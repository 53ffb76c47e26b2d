"""MODEL strings to something that gives features, and other people's weights in and out."""
