"""A stored network enters; a repository with a model card leaves, on the hub or in a folder; and back.

`facts` says what is known of a network, `card` writes it down, `repository` lays the files out, and `hub`
alone speaks with huggingface_hub.
"""
