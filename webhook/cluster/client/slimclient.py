"""Import kubernetes-asyncio's client without its typed models.

The package imports 850 modules of models with any part of it, which costs every process 33 MB and most of a second.
Weightlock uses none of them: objects stay dictionaries. So its packages are entered without running their
``__init__``. Access to any other attribute imports the whole package, as without this module.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_PACKAGE = "kubernetes_asyncio"
_CLIENT = f"{_PACKAGE}.client"
_MODELS = f"{_CLIENT}.models"
_WANTED = {"configuration": "Configuration", "api_client": "ApiClient"}


class _Slim(ModuleType):
    """A package whose ``__init__`` has not run; it runs when an attribute is missing."""

    def __init__(self, name: str, place: str) -> None:
        super().__init__(name)
        self.__path__ = [place]
        self.entered = False

    def __getattr__(self, name: str) -> Any:
        # While it is entered, the import system probes for submodules and accepts that they are missing.
        if name.startswith("__") or not self.entered:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        _import_whole_package()
        return getattr(sys.modules[self.__name__], name)


def enter() -> None:
    """Make ``ApiClient`` and ``Configuration`` importable without the rest, unless the package is already imported."""
    spec = None if _PACKAGE in sys.modules else find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return
    place = spec.submodule_search_locations[0]
    package, client, models = (
        _Slim(_PACKAGE, place),
        _Slim(_CLIENT, f"{place}/client"),
        _Slim(_MODELS, f"{place}/client/models"),
    )
    slim = (package, client, models)
    sys.modules |= {module.__name__: module for module in slim}
    # As an import would do.
    vars(package)["client"], vars(client)["models"] = client, models
    for module, name in _WANTED.items():
        vars(client)[name] = getattr(importlib.import_module(f"{_CLIENT}.{module}"), name)
    for one in slim:
        one.entered = True


def _import_whole_package() -> None:
    """Import the packages again; their imported modules stay the same."""
    for name in (_PACKAGE, _CLIENT, _MODELS):
        if isinstance(sys.modules.get(name), _Slim):
            del sys.modules[name]
    importlib.import_module(_PACKAGE)
