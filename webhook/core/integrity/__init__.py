"""Integrity of the webhook configurations, the CRDs and the access objects behind them. Pure."""
