"""Speed, as ratios within one run; nothing here is a test that can fail on a slow machine."""
