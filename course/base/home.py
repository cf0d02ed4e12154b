"""BentoML keeps its files in the home folder of its user, if there is one."""

import os
import tempfile
from pathlib import Path


def give_bentoml_a_home() -> None:
    """Let BentoML write to a temporary folder where there is no home folder, or a read-only one.

    Without a home folder it would make a folder called `~` where it is started.
    """
    home = os.path.expanduser("~")  # `~` itself where there is none
    if "BENTOML_HOME" not in os.environ and not os.access(home, os.W_OK):
        folder = Path(tempfile.gettempdir()) / f"bentoml-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["BENTOML_HOME"] = str(folder)
