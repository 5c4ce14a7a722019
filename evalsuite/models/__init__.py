"""Feed-forward networks that turn posed views into a field of Gaussians."""
