"""LGM (arXiv 2402.05054): four posed views through a multi-view U-Net into pixel-wise Gaussians.

An independent implementation from the paper and the published tensor names; it loads the public checkpoints.
"""
