"""DreamerV3 as in the paper, in plain torch with autograd. Knows no advice, no option, no thread count and no device
but its tensors' own."""
