"""Values that only the libraries can make: quantities, addresses, versions, authorizer checks.

They travel through the engine as messages of a descriptor pool of our own, so JSON can never pass for one and the
checker knows their types. Each message contains one repeated string named by a CEL keyword, which no expression can
write or read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

QUANTITY: Final = "kubernetes.Quantity"
SEMVER: Final = "kubernetes.Semver"
URL: Final = "kubernetes.URL"
FORMAT: Final = "kubernetes.NamedFormat"
IP: Final = "net.IP"
CIDR: Final = "net.CIDR"
AUTHORIZER: Final = "kubernetes.authorization.Authorizer"
PATH_CHECK: Final = "kubernetes.authorization.PathCheck"
GROUP_CHECK: Final = "kubernetes.authorization.GroupCheck"
RESOURCE_CHECK: Final = "kubernetes.authorization.ResourceCheck"
DECISION: Final = "kubernetes.authorization.Decision"

FIELD: Final = "in"
_FIELD_NUMBER: Final = 1
_TYPES: Final = (
    QUANTITY,
    SEMVER,
    URL,
    FORMAT,
    IP,
    CIDR,
    AUTHORIZER,
    PATH_CHECK,
    GROUP_CHECK,
    RESOURCE_CHECK,
    DECISION,
)


class Opaque(Protocol):
    """A value of a library, which can travel as a message.

    Its class also has a class method ``of`` that makes an equal value of the parts, and raises TypeError or
    ValueError for parts that no value has.
    """

    TYPE: ClassVar[str]

    def parts(self) -> tuple[str, ...]:
        """Return the strings of the message."""


def message_files() -> Sequence[descriptor_pb2.FileDescriptorProto]:
    """Return the files that define the messages, one a package, for the pool the engine works with."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for full_name in _TYPES:
        package, _, name = full_name.rpartition(".")
        file = files.setdefault(
            package,
            descriptor_pb2.FileDescriptorProto(
                name=f"weightlock/libraries/{package}.proto", package=package, syntax="proto3"
            ),
        )
        file.message_type.add(name=name).field.add(
            name=FIELD,
            number=_FIELD_NUMBER,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
        )
    return tuple(files.values())


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    for file in message_files():
        pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in _TYPES}


_CLASSES: Final = _classes()
_MAKERS: Final[dict[str, Callable[..., Opaque]]] = {}


def register(values: Iterable[Any]) -> None:
    """Register the value classes for `unpack`. Called once, by the package."""
    _MAKERS.update((value.TYPE, value.of) for value in values)


def pack(value: Opaque) -> Any:
    """Return the message that carries ``value``."""
    return _CLASSES[value.TYPE](**{FIELD: value.parts()})


def unpack(message: Any) -> Opaque:
    """Return the value a message carries; raises ValueError for a message that no library created."""
    name = message.DESCRIPTOR.full_name
    make = _MAKERS.get(name)
    if make is None:
        raise ValueError("no such overload")
    try:
        return make(*getattr(message, FIELD))
    except (TypeError, ValueError):
        raise ValueError(f"not a value of type {name}") from None
