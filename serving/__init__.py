"""What the services share: images, model files, input checks, request limits.

Needs requirements-serving.txt only: neither torch nor torchvision is imported from here.
"""


class Problem(Exception):
    """Something that a user can get wrong; the message says what, and what to do. Shown without a stack trace."""
