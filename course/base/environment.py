"""What every command and test sets in the environment, for itself and for what it starts."""

import os
import tempfile
from pathlib import Path


def never_proxy_this_machine() -> None:
    """Let every HTTP library reach this machine without a proxy: proxies are for other machines."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = os.environ.get(name, "").split(",")
        os.environ[name] = ",".join(dict.fromkeys([*filter(None, hosts), "localhost", "127.0.0.1", "::1"]))


def give_bentoml_a_home() -> None:
    """Let BentoML keep its files in a temporary folder where its user has no home folder, or a read-only one.

    Without a home folder it makes a folder called `~` where it is started.
    """
    home = os.path.expanduser("~")  # `~` itself where there is none
    if "BENTOML_HOME" not in os.environ and (home == "~" or not os.access(home, os.W_OK)):
        folder = Path(tempfile.gettempdir()) / f"bentoml-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["BENTOML_HOME"] = str(folder)
