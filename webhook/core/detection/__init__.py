"""Detection rules over the entries of the audit log and the API server's audit events.

`rule` reads Sigma rules, `match` and `condition` evaluate them, `correlation` and `statistic` hold the state of what
spans several events, and `engine` runs all of them. Time comes from the events, so the same log gives the same alerts.
Nothing here decides about a request: an alert never denies and never releases.
"""
