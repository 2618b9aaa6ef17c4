"""Finds the methods: every module that lies in this package itself holds one; what they share is in packages below it.

A new method is one new file; nothing else names it. The scan goes through the import system, not
the file system, so it also works from an archive or a frozen program.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType, ModuleType

import appliance.methods
from appliance.core.method import MethodTable
from appliance.core.names import MethodName, is_method_name
from appliance.errors import MethodUnusable
from appliance.methods.base import Method

_NO_METHODS = frozenset({"base", "registry", "texts"})


def find_methods(package: ModuleType) -> Mapping[MethodName, Method]:
    """Import every method module of `package`.

    Raises:
        MethodUnusable: a module cannot be imported or holds no `METHOD`, a name is none, or two modules hold the same.
    """
    found: dict[MethodName, Method] = {}
    for entry in sorted(pkgutil.iter_modules(package.__path__), key=lambda entry: entry.name):
        if entry.ispkg or entry.name.startswith("_") or entry.name in _NO_METHODS:
            continue
        module = _import(f"{package.__name__}.{entry.name}")
        method = getattr(module, "METHOD", None)
        if not isinstance(method, Method):
            raise MethodUnusable(f"{module.__name__} holds no METHOD")
        name = method.info.name
        if not is_method_name(name):
            raise MethodUnusable(f"{module.__name__}: {name!r} is no method name")
        if name in found:
            raise MethodUnusable(f"{module.__name__}: method {name} is defined twice")
        found[name] = replace(method, module=module.__name__)
    return MappingProxyType(found)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    # NB: whoever added it may have written anything, and whoever reads of it has to find the file
    except (Exception, SystemExit) as error:
        spec = importlib.util.find_spec(name)
        place = spec.origin if spec is not None and spec.origin is not None else name
        raise MethodUnusable(
            f"cannot load the method in {place}: {type(error).__name__}: {error}"
        ) from error


METHODS: Mapping[MethodName, Method] = find_methods(appliance.methods)
METHOD_TABLE: MethodTable = MappingProxyType(
    {name: method.info for name, method in METHODS.items()}
)
