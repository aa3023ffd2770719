"""A predictor enters; a page in the browser that shows what it makes of images leaves.

`session` is what happens to one image, `page` is what it looks like, `server` is how it is reached.
"""
