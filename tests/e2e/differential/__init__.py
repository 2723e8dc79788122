"""The corpus of the differential test: policies, objects and people, and the two engines that judge them.

`case` says what a triple is, the `*_cases` modules hold the tables, `native` asks the API server's own
ValidatingAdmissionPolicy, `offline` asks Weightlock, and `expected` names every difference that is known.
"""
