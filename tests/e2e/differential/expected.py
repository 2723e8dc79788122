"""Every known difference between the API server's ValidatingAdmissionPolicy and Weightlock, by case, with its reason.

Reasons are headings of docs/differences.md, which explains them. A case that is not named here must agree, and one
that is named must differ.
"""

FRACTIONS = "Fractions of seconds are printed in groups of three digits"
PRECISION = "The precision of %e is honoured"
OPTIONAL_FORMAT = "A literal with optional entries can be formatted"
INCLUDES = "includes is available at once"
EQUALITY = "Authorizers can be compared"
EARLY = "The authorizer in an audit annotation is rejected at compile time"
WORDS = "Some runtime errors have another text"
NULL = "Reading a field of null has another error text"
VARIABLE = "An error in a variable does not name the variable"
BUDGET = "The budget of an evaluation is counted in iterations"
VERSIONS = "A version that is not served matches like any other"
PARAMS = "Missing params are a violation with its own message"
STORED = "Objects that the API server would not store are read as far as possible"
FACTS = "Weightlock's own variables are available"

DIFFERENCES: dict[str, str] = {
    "strings-text-value-26": FRACTIONS,
    "strings-text-value-27": FRACTIONS,
    "strings-text-value-30": PRECISION,
    "optionals-value-13": OPTIONAL_FORMAT,
    "optionals-value-14": OPTIONAL_FORMAT,
    "lists-value-22": INCLUDES,
    "authorizer-wrong-5": EQUALITY,
    "authorizer-in-audit": EARLY,
    **dict.fromkeys(("strings-1", "strings-2", "strings-3", "strings-5", "strings-10", "strings-11"), WORDS),
    **dict.fromkeys(("strings-22", "sets-13", "two-variables-1", "optionals-14"), WORDS),
    **dict.fromkeys(
        ("condition-namespace-read-fail", "params-kind-without-reference-read", "delete-4"), NULL
    ),
    "variable-reached": VARIABLE,
    "failure-fail-budget": BUDGET,
    "match-policy-equivalent-unknown-version": VERSIONS,
    **dict.fromkeys(("version-converted-5", "version-converted-6"), VERSIONS),
    **dict.fromkeys(("params-not-in-namespace", "params-missing-deny"), PARAMS),
    **dict.fromkeys(("params-by-selector-none", "params-unknown-kind"), PARAMS),
    **dict.fromkeys((f"params-namespace-of-cluster-kind-fail-{end}" for end in ("deny", "allow")), PARAMS),
    **dict.fromkeys((f"params-unknown-fail-{end}" for end in ("deny", "allow")), PARAMS),
    "params-cluster-kind-fail-deny": PARAMS,
    **dict.fromkeys(
        (
            f"params-for-cluster-object-{label}-fail-{end}"
            for label in ("name", "selector")
            for end in ("deny", "allow")
        ),
        PARAMS,
    ),
    **dict.fromkeys(("match-nothing-required", "validations-none", "message-two-lines"), STORED),
    **dict.fromkeys(("reason-unauthorized", "condition-named-twice", "audit-same-key"), STORED),
    **dict.fromkeys(
        ("actions-deny-warn", "actions-deny-warn-error", "actions-deny-warn-error-ignored"), STORED
    ),
    **dict.fromkeys(
        ("actions-deny-deny", "actions-deny-deny-error", "actions-deny-deny-error-ignored"), STORED
    ),
    **dict.fromkeys(("object-17", "object-18", "object-19"), FACTS),
}
