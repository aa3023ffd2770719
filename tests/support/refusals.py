"""Checks that a file is refused in one line that names it."""

import pytest

from flaxunet.io.images import ImageError


def refusal(function, path, *arguments, **options):
    """Calls a function with a path, which must raise ImageError in one line that begins with the path.

    Returns: the message.
    """
    with pytest.raises(ImageError) as error:
        function(path, *arguments, **options)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message
