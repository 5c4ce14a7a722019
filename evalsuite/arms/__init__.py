"""The arms of the ablation: ways to turn `Evidence` into something that can be rendered."""
