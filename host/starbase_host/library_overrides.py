"""Methods of libraries that are replaced here although the library promises nothing about them.

Owns the mark on such a method, the check that the library still has it and calls it, and the check that a library's
release is one that this project was tested with. A guard that a new release no longer calls would fail in silence:
nothing would miss it until somebody got past it.
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
    """Mark a method that replaces a library's.

    callers: the library's own functions that must call it, by their dotted names
        (`aiomysql.connection.Connection._connect`).
    library: the import name, where no function of the library calls the method: the event loop does, or compiled code.
    """
    name = library or _top(callers[0])

    def mark(method: Method) -> Method:
        setattr(method, MARK, (name, callers))
        return method

    return mark


def check_overrides(*classes: type) -> None:
    """Check every marked method of these classes, and of those of ours that they derive from.

    Raises IncompatibleLibrary that names the library, its version and the method: where no class of the library that
    ours derive from has the method, where its arguments are not ours, or where a caller does not call it.
    """
    ours = dict.fromkeys(base for one in classes for base in one.__mro__)
    marked = [(one, name, method) for one in ours for name, method in vars(one).items() if hasattr(method, MARK)]
    wrong = [(library, _wrong_with(*each, library)) for each in marked for library, _ in [getattr(each[2], MARK)]]
    wrong += [
        (_top(caller), _uncalled(name, caller)) for _, name, method in marked for caller in getattr(method, MARK)[1]
    ]
    for library, why in wrong:
        if why is not None:
            needed = _requirements("starbase-host", library)
            mend = f"install '{needed[0]}'" if needed else "install another version of it"
            raise IncompatibleLibrary(f"{library} {_version(library)} {why}; {mend}")


def check_versions(distribution: str, *libraries: str) -> None:
    """Check that these libraries are installed in a version that a distribution's own requirements allow.

    Raises IncompatibleLibrary that names the library, its version and what to install. Imports none of them.
    """
    for library in libraries:
        for needed in _requirements(distribution, library):
            found = _numbers(_version(library))
            for mark, bound in re.findall(r"(>=|<)\s*([0-9.]+)", needed):
                if (found < _numbers(bound)) == (mark == ">="):
                    raise IncompatibleLibrary(
                        f"{library} {_version(library)} is installed, whose private methods this host was not tested "
                        f"with; install '{needed}'"
                    )


def _wrong_with(one: type, name: str, method: Any, library: str) -> str | None:
    """Why a method does not stand in the place of the library's; None where it does, or our class has no base there."""
    bases = [base for base in one.__mro__[1:] if _top(base.__module__) == library]
    if not bases:
        return None
    theirs = next((vars(base)[name] for base in bases if name in vars(base)), None)
    shown = f"{bases[0].__qualname__}.{name}"
    if theirs is None:
        return f"has no {shown}, which this host replaces"
    if inspect.iscoroutinefunction(theirs) != inspect.iscoroutinefunction(method):
        return f"has another kind of {shown} than this host replaces"
    if not _accepts(method, theirs):
        return f"gives {shown} other arguments than this host takes"
    return None


def _uncalled(name: str, caller: str) -> str | None:
    """Why a method is not called by this function of the library; None where it is."""
    found = _find(caller)
    if found is None:
        return f"has no {caller}, which is to call {name}"
    return None if name in _names(found.__code__) else f"does not call {name} in {caller} any more"


def _top(dotted: str) -> str:
    return dotted.partition(".")[0]


def _accepts(ours: Any, theirs: Any) -> bool:
    """Whether whoever calls the library's method may call ours in the same way."""
    mine, other = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
    kinds = {parameter.kind for parameter in mine.values()}
    rest = inspect.Parameter.VAR_POSITIONAL in kinds and inspect.Parameter.VAR_KEYWORD in kinds
    some = inspect.Parameter.VAR_KEYWORD in kinds
    # Leading arguments may bear other names: they are given by their place.
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
    """Every name that a function uses, the functions inside it included."""
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
    """A version's numbers, without zeros at its end: 0.3 and 0.3.0 are one version."""
    numbers = [int(part) for part in re.findall(r"[0-9]+", re.split(r"[^0-9.]", text, maxsplit=1)[0])]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _requirements(distribution: str, library: str) -> list[str]:
    """What a distribution requires of a library, without its extras'."""
    try:
        needed = requires(distribution) or []
    except PackageNotFoundError:
        return []
    own = [one for one in needed if "extra ==" not in one]
    return [one for one in own if re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0].lower() == library.lower()]
