"""Evidence: recompute from the log alone which controls were in force, and write it as OSCAL.

`timeline` collects entries. `assess` decides each control of a profile (`profiles`). `oscal` and `html` render the
result. A control is satisfied only if every interval of the period has a positive observation and none has a contrary
one. A control is never satisfied for lack of observations.
"""
