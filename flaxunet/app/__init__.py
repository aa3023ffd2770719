"""Serves a page in the browser that shows the predictions of a network for uploaded images.

`session` predicts and paints one image, `page` and `text` are the page, `server` serves it.
"""
