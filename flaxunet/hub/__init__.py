"""Shares stored networks as repositories with a model card, on the Hugging Face hub or in folders.

`facts` collects what is known of a network, `card` writes it down, `repository` lays out the files, and only
`client` uses huggingface_hub.
"""
