"""Pictures and masks around the model: numpy arrays in, numpy arrays out.

Pictures are [H, W, 3] or, with straight alpha, [H, W, 4]; masks are [H, W]. Both are uint8, and 255 of a mask is fully
selected. Sizes are (width, height) in pixels.
"""
