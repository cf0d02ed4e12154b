"""Proxies are for other machines: what talks to this one never uses any."""

import os


def never_proxy_this_machine() -> None:
    """Let every HTTP library in this process, and in those that it starts, reach this machine without a proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = os.environ.get(name, "").split(",")
        os.environ[name] = ",".join(dict.fromkeys([*filter(None, hosts), "localhost", "127.0.0.1", "::1"]))
