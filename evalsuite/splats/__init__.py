"""What all arms share: rasterising, optimising and storing 3D Gaussians."""
