"""The version of what plugins may use, what a plugin requires of it, and warnings of what will be removed.

Must not know which plugins exist.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from starbase_host.isolation import RUNNING

# MAJOR.MINOR of the names that `starbase_host` exports and of the host's hooks. MINOR grows with each addition, MAJOR
# when something is removed or changed.
API = "1.0"
HOST = "starbase_host"
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})\Z")
REQUIRES = 'must be a dict of texts, such as {"starbase_host": "1.0"}'


class ApiDeprecation(DeprecationWarning):
    """A plugin uses something that will be removed. The host logs it, once for each place."""


def deprecated(what: str, *, instead: str, removed_in: str) -> None:
    """Warn the caller of the function that calls this. For the API of the host, and for that of your own plugin.

    what: what is used. instead: what to use. removed_in: the API version without it.
    """
    who = RUNNING.get()
    by = f"plugin {who} uses " if who is not None else ""
    message = f"{by}{what}, which API {removed_in} removes; use {instead}"
    warnings.warn(message, ApiDeprecation, stacklevel=3)


def requirement_problem(requires: Any, offered: Mapping[str, str | None]) -> str | None:
    """What is wrong with the `requires` of a plugin, and the fix; None if all of it is there.

    offered: API versions by name, the host's and those of the enabled plugins; None for a plugin that states none.
    """
    if type(requires) is not dict:
        return f"has a `requires` that {REQUIRES}"
    for name, wanted in requires.items():
        if type(name) is not str or type(wanted) is not str or not (needs := _VERSION.match(wanted)):
            return f"has a `requires` that {REQUIRES}"
        if name not in offered:
            return f"needs the plugin {name}, which is not enabled; add [plugins.{name}] to plugin.toml"
        has = _VERSION.match(offered[name] or "0.0")
        if has is None:
            return f"needs API {wanted} of {name}, whose `api_version` is not MAJOR.MINOR; tell the author of {name}"
        if int(has[1]) > int(needs[1]):
            fix = f"install a newer version of this plugin, or an older one of {name}"
        elif int(has[1]) < int(needs[1]) or int(has[2]) < int(needs[2]):
            fix = f"install a newer version of {name}, or an older one of this plugin"
        else:
            continue
        return f"needs API {wanted} of {name}, which has {offered[name] or 'none'}; {fix}"
    return None
