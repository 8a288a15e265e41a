"""The page beside an animation in the making: what it looks like now, how the losses fall, in the end its videos."""
