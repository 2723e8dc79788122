"""The one CEL engine that decides: Kubernetes' dialect, compiled once, evaluated on one request at a time."""

from webhook.core.cel.context import User
from webhook.core.cel.environment import Environment, environment
from webhook.core.cel.errors import CompileError, EvaluationError, Issue
from webhook.core.cel.program import Bindings, Program
from webhook.core.cel.variables import Variables

__all__ = [
    "Bindings",
    "CompileError",
    "Environment",
    "EvaluationError",
    "Issue",
    "Program",
    "User",
    "Variables",
    "environment",
]
