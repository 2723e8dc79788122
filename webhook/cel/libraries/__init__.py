"""The Kubernetes CEL libraries up to 1.37, as declarations, implementations and rewritings for cel-expr-python.

What an engine adapter does with it: build its environments from `configuration`, `implementations`, `functions`,
`extensions` and `message_files`; report `issues` of a checked expression; and `lower` it before it is evaluated. No
function here does I/O, and none takes a list, a map or a dynamic value from the engine.
"""

from webhook.cel.libraries.opaque import message_files
from webhook.cel.libraries.registry import (
    configuration,
    extensions,
    function_names,
    functions,
    implementations,
    issues,
    lower,
    variables,
)

__all__ = [
    "configuration",
    "extensions",
    "function_names",
    "functions",
    "implementations",
    "issues",
    "lower",
    "message_files",
    "variables",
]
