"""Overrides of library methods that are not part of the library's public interface.

Owns the mark on such an override, the check that the library still has and calls the method, and the check that the
release of the library is one that this project was tested with. If a new release no longer called an override that
guards something, nobody would notice until somebody got past the guard.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from types import CodeType
from typing import Any, TypeVar

from starbase_host.errors import IncompatibleLibrary

Method = TypeVar("Method", bound=Callable[..., Any])
MARK = "_overrides"


def overrides(*callers: str, library: str = "") -> Callable[[Method], Method]:
    """Mark a method that overrides one of a library.

    callers: the functions of the library that must call it, by dotted name, such as
        `aiomysql.connection.Connection._connect`.
    library: the import name of the library, when no Python function of it calls the method, but the event loop or
        compiled code does.
    """
    name = library or _top(callers[0])

    def mark(method: Method) -> Method:
        setattr(method, MARK, (name, callers))
        return method

    return mark


def check_overrides(*classes: type) -> None:
    """Check every marked method of these classes and of their base classes.

    Raises IncompatibleLibrary, which names the library, its version and the method, when no base class of the library
    has the method, when its arguments differ, or when a caller does not call it.
    """
    ours = dict.fromkeys(base for one in classes for base in one.__mro__)
    marked = [(one, name, method) for one in ours for name, method in vars(one).items() if hasattr(method, MARK)]
    wrong = [(library, _mismatch(*each, library)) for each in marked for library, _ in [getattr(each[2], MARK)]]
    wrong += [
        (_top(caller), _missing_call(name, caller)) for _, name, method in marked for caller in getattr(method, MARK)[1]
    ]
    for library, why in wrong:
        if why is not None:
            needed = _requirements("starbase-host", library)
            fix = f"install '{needed[0]}'" if needed else "install another version of it"
            raise IncompatibleLibrary(f"{library} {_version(library)} {why}; {fix}")


def check_versions(distribution: str, *libraries: str) -> None:
    """Check that the installed versions of these libraries meet the requirements of a distribution.

    distribution: the name of an installed package, such as starbase-host.
    libraries: their names in its requirements. They are not imported.
    Raises IncompatibleLibrary, which names the library, its version and what to install.
    """
    for library in libraries:
        for needed in _requirements(distribution, library):
            found = _numbers(_version(library))
            for mark, bound in re.findall(r"(>=|<)\s*([0-9.]+)", needed):
                if (found < _numbers(bound)) == (mark == ">="):
                    raise IncompatibleLibrary(
                        f"{library} {_version(library)} is installed, but this host overrides its private methods, and "
                        f"was not tested with this version; install '{needed}'"
                    )


def _mismatch(one: type, name: str, method: Any, library: str) -> str | None:
    """Why a method does not override the library's; None when it does, or the class has no base class there."""
    bases = [base for base in one.__mro__[1:] if _top(base.__module__) == library]
    if not bases:
        return None
    theirs = next((vars(base)[name] for base in bases if name in vars(base)), None)
    shown = f"{bases[0].__qualname__}.{name}"
    if theirs is None:
        return f"has no {shown}, which this host overrides"
    if inspect.iscoroutinefunction(theirs) != inspect.iscoroutinefunction(method):
        return f"has another kind of {shown} than the one that this host overrides"
    if not _accepts(method, theirs):
        return f"calls {shown} with other arguments than this host takes"
    return None


def _missing_call(name: str, caller: str) -> str | None:
    """Why this function of the library does not call a method; None when it does."""
    found = _find(caller)
    if found is None:
        return f"has no {caller}, which must call {name}"
    return None if name in _names(found.__code__) else f"no longer calls {name} in {caller}"


def _top(dotted: str) -> str:
    return dotted.partition(".")[0]


def _accepts(ours: Any, theirs: Any) -> bool:
    """Whether our method can be called in every way that the library's method can."""
    mine, other = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
    kinds = {parameter.kind for parameter in mine.values()}
    rest = inspect.Parameter.VAR_POSITIONAL in kinds and inspect.Parameter.VAR_KEYWORD in kinds
    some = inspect.Parameter.VAR_KEYWORD in kinds
    # Positional arguments may have other names.
    places = [name for name, one in mine.items() if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    for place, (name, parameter) in enumerate(other.items()):
        named = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        if not (rest or name in mine or (some and named) or (not named and place < len(places))):
            return False
    needed = [name for name, one in mine.items() if one.default is inspect.Parameter.empty and one.kind < 2]
    return len(needed) <= len(other)


def _find(dotted: str) -> Any:
    parts = dotted.split(".")
    found: Any = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], start=1):
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(".".join(parts[: number + 1]))
            except ImportError:
                return None
    return inspect.unwrap(found) if hasattr(found, "__code__") else None


def _names(code: CodeType) -> Iterator[str]:
    """Yield every name that a function uses, also in the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "(of an unknown version)"


def _numbers(text: str) -> tuple[int, ...]:
    """The numbers of a version, without zeros at the end: 0.3 and 0.3.0 are the same version."""
    numbers = [int(part) for part in re.findall(r"[0-9]+", re.split(r"[^0-9.]", text, maxsplit=1)[0])]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _requirements(distribution: str, library: str) -> list[str]:
    """What a distribution requires of a library, without the requirements of its extras."""
    try:
        needed = requires(distribution) or []
    except PackageNotFoundError:
        return []
    own = [one for one in needed if "extra ==" not in one]
    return [one for one in own if re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0].lower() == library.lower()]
