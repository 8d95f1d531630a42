"""The process that answers clients. It never imports torch, numpy or Pillow, so that it starts at once."""
