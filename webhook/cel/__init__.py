"""The one CEL engine that decides: Kubernetes' dialect, compiled once, evaluated on one request at a time."""

from webhook.cel.context import User
from webhook.cel.environment import Environment, environment
from webhook.cel.errors import CompileError, EvaluationError, Issue
from webhook.cel.program import Bindings, Program
from webhook.cel.variables import Variables

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
